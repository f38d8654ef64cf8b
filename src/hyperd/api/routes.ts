import type {
  AttachRequest,
  CreatePod,
  ExecRequest,
  HyperContainerSpec,
  HyperPodSpec,
  PoolLimit,
  PodResources,
  ProbeRequest,
  VolumeFiles,
} from '../../api/hyperd.ts';
import { StatusError, badRequest } from '../../api/status.ts';
import {
  validateAttach,
  validateContainerSpec,
  validateCreate,
  validateExec,
  validatePodSpec,
  validatePoolLimit,
  validateProbe,
  validateResources,
  validateVolumeFiles,
} from '../daemon/validate.ts';
import { signalNumber } from '../daemon/signals.ts';
import { IMAGE_ROUTES } from './image-routes.ts';
import { flag, whole, word } from './query.ts';
import { openLines, send } from './requests.ts';
import { LOG_MEDIA, METRICS_MEDIA, route, upgradeRoute } from './router.ts';
import type { Route, RouteContext } from './router.ts';
import { serveAttach, serveExec, servePort } from './streams.ts';

const PORT_MAX = 65_535;
/** A day: who wants to wait for longer does not want it to stop. */
const GRACE_MS_MAX = 24 * 3600 * 1000;

const POD = { type: 'PodState' } as const;

const MACHINE_ROUTES: Route[] = [
  route('GET', '/v1/ping', { summary: 'Whether hyperd answers' }, async () => undefined),
  route(
    'GET',
    '/v1/info',
    { summary: 'What this hyperd is and runs on', answer: { type: 'HyperdInfo' } },
    ({ daemon }) => daemon.info(),
  ),
  route(
    'GET',
    '/v1/events',
    {
      summary: 'What changes, from now on or from an event on',
      query: { after: whole('The sequence number of the last event that is known') },
      answer: { lines: 'HyperdEvent' },
    },
    async ({ daemon, response, query, signal }) => {
      const events = daemon.events.subscribe(query.after, signal);
      openLines(response);
      for await (const event of events) await send(response, `${JSON.stringify(event)}\n`);
      response.end();
    },
  ),
  route(
    'GET',
    '/v1/kernels',
    { summary: 'Guest kernels', answer: { type: 'KernelStatus', isList: true } },
    ({ daemon }) => daemon.kernels(),
  ),
  route(
    'GET',
    '/v1/templates',
    { summary: 'VMs that others are made of', answer: { type: 'TemplateStatus', isList: true } },
    async ({ daemon }) => daemon.templates(),
  ),
  route(
    'DELETE',
    '/v1/templates/{id}',
    { summary: 'Remove a template; the next pod of its kind makes it anew' },
    ({ daemon }, id = '') => daemon.removeTemplate(id),
  ),
  route(
    'GET',
    '/v1/pools',
    { summary: 'VMs that wait for pods', answer: { type: 'PoolStatus', isList: true } },
    async ({ daemon }) => daemon.pools(),
  ),
  route(
    'PUT',
    '/v1/owners/{owner}/pool',
    { summary: 'Limit the memory of VMs that wait for pods of an owner', body: 'PoolLimit' },
    async ({ daemon, body }, owner = '') => {
      const { memoryMib } = validatePoolLimit(await body<PoolLimit>());
      daemon.limitPool(owner, memoryMib);
    },
  ),
  route(
    'DELETE',
    '/v1/owners/{owner}',
    {
      summary:
        'Remove what an owner without pods has: templates, VMs that wait, and images that nobody ' +
        'else has run. Idempotent',
    },
    ({ daemon }, owner = '') => daemon.removeOwner(owner),
  ),
  route(
    'GET',
    '/v1/metrics',
    { summary: 'Where VMs come from, for Prometheus', answer: { media: METRICS_MEDIA } },
    async ({ daemon, response }) => {
      response.setHeader('content-type', METRICS_MEDIA);
      response.end(daemon.metrics());
    },
  ),
  route(
    'GET',
    '/v1/vms',
    { summary: 'Virtual machines', answer: { type: 'VmStatus', isList: true } },
    ({ daemon }) => daemon.vms(),
  ),
];

const POD_ROUTES: Route[] = [
  route(
    'GET',
    '/v1/pods',
    { summary: 'All pods', answer: { ...POD, isList: true } },
    async ({ daemon }) => daemon.pods(),
  ),
  route(
    'POST',
    '/v1/pods',
    { summary: 'Make a new pod, and start it if asked to', body: 'CreatePod', answer: POD },
    async ({ daemon, body }) => daemon.createNewPod(validateCreate(await body<CreatePod>())),
  ),
  route('GET', '/v1/pods/{pod}', { summary: 'A pod', answer: POD }, async ({ daemon }, id = '') =>
    daemon.pod(id).state(),
  ),
  route(
    'PUT',
    '/v1/pods/{pod}',
    { summary: 'Make a pod and start its VM. Idempotent', body: 'HyperPodSpec', answer: POD },
    createPod,
  ),
  route(
    'DELETE',
    '/v1/pods/{pod}',
    { summary: 'End the VM and remove everything of the pod' },
    ({ daemon }, id = '') => daemon.removePod(id),
  ),
  route(
    'POST',
    '/v1/pods/{pod}/start',
    { summary: 'Start a pod that was not started yet, or has ended', answer: POD },
    ({ daemon }, id = '') => daemon.startPod(id),
  ),
  route(
    'POST',
    '/v1/pods/{pod}/stop',
    {
      summary: 'End the VM and give back what only a VM needs. Idempotent',
      query: {
        graceMs: whole('How long containers have to end by their stop signals; 0 for none'),
      },
      answer: POD,
    },
    ({ daemon, query: { graceMs = 0 } }, id = '') => {
      if (graceMs > GRACE_MS_MAX) {
        throw badRequest(
          `Query parameter "graceMs" must be at most ${GRACE_MS_MAX}, is ${graceMs}`,
        );
      }
      return daemon.pod(id).stop(graceMs);
    },
  ),
  route(
    'POST',
    '/v1/pods/{pod}/pause',
    { summary: 'Hold the VM. Idempotent', answer: POD },
    ({ daemon }, id = '') => daemon.pod(id).pause(),
  ),
  route(
    'POST',
    '/v1/pods/{pod}/unpause',
    { summary: 'Let a VM go on that is held. Idempotent', answer: POD },
    ({ daemon }, id = '') => daemon.pod(id).unpause(),
  ),
  route(
    'PUT',
    '/v1/pods/{pod}/resources',
    {
      summary: 'Give a pod that runs, and containers of it, other limits. Idempotent',
      body: 'PodResources',
      answer: POD,
    },
    async ({ daemon, body }, id = '') =>
      daemon.pod(id).resize(validateResources(await body<PodResources>())),
  ),
  route(
    'GET',
    '/v1/pods/{pod}/stats',
    { summary: 'What the pod uses', answer: { type: 'PodStats' } },
    async ({ daemon }, id = '') => daemon.pod(id).stats(),
  ),
  route(
    'POST',
    '/v1/pods/{pod}/probe',
    {
      summary: 'Probe from inside of the pod',
      body: 'ProbeRequest',
      answer: { type: 'ProbeResult' },
    },
    async ({ daemon, body }, id = '') => {
      const request = validateProbe(await body<ProbeRequest>());
      return daemon.pod(id).agent((agent) => agent.probe(request));
    },
  ),
  route(
    'PUT',
    '/v1/pods/{pod}/volumes/{name}',
    { summary: "Replace a file volume's content atomically", body: 'VolumeFiles' },
    async ({ daemon, body }, id = '', name = '') => {
      const content = validateVolumeFiles(name, await body<VolumeFiles>());
      await daemon.pod(id).writeVolume(name, content);
    },
  ),
  upgradeRoute(
    '/v1/pods/{pod}/port/{port}',
    { summary: 'A TCP connection to a port inside of the pod' },
    {
      protocol: 'hyper-raw',
      async open({ daemon, socket }, id = '', text = '') {
        const port = portNumber(text);
        const connection = await daemon.pod(id).agent((agent) => agent.connectPort(port), 'once');
        return () => servePort(socket, connection);
      },
    },
  ),
];

const CONTAINER_ROUTES: Route[] = [
  route(
    'PUT',
    '/v1/pods/{pod}/containers/{container}',
    {
      summary: 'Start a container. Idempotent',
      body: 'HyperContainerSpec',
      answer: { type: 'ContainerState' },
    },
    startContainer,
  ),
  route(
    'GET',
    '/v1/pods/{pod}/containers/{container}',
    { summary: 'A container as it was started', answer: { type: 'HyperContainerSpec' } },
    async ({ daemon }, podId = '', id = '') => daemon.pod(podId).container(id).record.spec,
  ),
  route(
    'DELETE',
    '/v1/pods/{pod}/containers/{container}',
    { summary: 'Remove a container that has ended, with its logs' },
    async ({ daemon }, podId = '', id = '') => daemon.pod(podId).removeContainer(id),
  ),
  route(
    'POST',
    '/v1/pods/{pod}/containers/{container}/signal',
    {
      summary: "Signal a container's process",
      query: { signal: word('A name or a number: TERM, SIGKILL, 15, RTMIN+3') },
    },
    async ({ daemon, query }, podId = '', id = '') =>
      daemon.pod(podId).signalContainer(id, signalNumber(query.signal)),
  ),
  route(
    'GET',
    '/v1/pods/{pod}/containers/{container}/log',
    {
      summary: 'What a container has written',
      query: {
        follow: flag('Go on as it writes'),
        tailLines: whole('Only so many lines from the end'),
        sinceMs: whole('Only what was written at this time or later; ms since the epoch'),
        stdout: flag('With stderr: which of the two; both where neither is named'),
        stderr: flag('See stdout'),
      },
      answer: { media: LOG_MEDIA },
    },
    streamLog,
  ),
  upgradeRoute(
    '/v1/pods/{pod}/containers/{container}/exec',
    { summary: 'A further process in a container', body: 'ExecRequest' },
    {
      protocol: 'hyper-stream',
      async open({ daemon, clock, socket, body }, podId = '', id = '') {
        const pod = daemon.pod(podId);
        pod.container(id);
        const exec = validateExec(body<ExecRequest>());
        const process = await pod.agent((agent) => agent.exec(id, exec.process), 'once');
        return () => serveExec(socket, process, exec, clock);
      },
    },
  ),
  upgradeRoute(
    '/v1/pods/{pod}/containers/{container}/attach',
    { summary: "The streams of a container's own process", body: 'AttachRequest' },
    {
      protocol: 'hyper-stream',
      async open({ daemon, socket, body }, podId = '', id = '') {
        const pod = daemon.pod(podId);
        const container = pod.container(id);
        const attach = validateAttach(body<AttachRequest>());
        pod.assertAwake();
        return () => serveAttach(socket, pod, container, attach);
      },
    },
  ),
];

/** Everything that hyperd can be asked for, but its description. */
export const ROUTES: readonly Route[] = [
  ...MACHINE_ROUTES,
  ...POD_ROUTES,
  ...CONTAINER_ROUTES,
  ...IMAGE_ROUTES,
];

async function createPod({ daemon, body }: RouteContext, id = ''): Promise<unknown> {
  const spec = validatePodSpec(await body<HyperPodSpec>());
  if (spec.id !== id) throw badRequest(`Pod id "${spec.id}" is not that of the path, "${id}"`);
  return daemon.createPod(spec);
}

async function startContainer(
  { daemon, body }: RouteContext,
  podId = '',
  id = '',
): Promise<unknown> {
  const pod = daemon.pod(podId);
  const spec = validateContainerSpec(await body<HyperContainerSpec>());
  if (spec.id !== id)
    throw badRequest(`Container id "${spec.id}" is not that of the path, "${id}"`);
  return pod.startContainer(spec);
}

interface LogQuery {
  follow: boolean | undefined;
  tailLines: number | undefined;
  sinceMs: number | undefined;
  stdout: boolean | undefined;
  stderr: boolean | undefined;
}

async function streamLog(
  { daemon, response, signal, query }: RouteContext & { query: LogQuery },
  podId = '',
  id = '',
): Promise<void> {
  const { follow = false, tailLines, sinceMs = 0, stdout, stderr } = query;
  const { log } = daemon.pod(podId).container(id);
  const isEither = stdout !== undefined || stderr !== undefined;
  const streams = new Set<1 | 2>();
  if (!isEither || stdout) streams.add(1);
  if (!isEither || stderr) streams.add(2);
  const chunks = log.read({ follow, tailLines, sinceMs, streams, signal });
  response.writeHead(200, { 'content-type': LOG_MEDIA });
  response.flushHeaders();
  for await (const chunk of chunks) await send(response, chunk);
  response.end();
}

function portNumber(text: string): number {
  const port = Number(text);
  if (/^\d{1,5}$/.test(text) && port >= 1 && port <= PORT_MAX) return port;
  throw new StatusError(
    'BadRequest',
    `Port must be from 1 to ${PORT_MAX}, is ${text.slice(0, 20)}`,
  );
}
