import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { KUBELET_CLIENT_USER, MASTERS_GROUP, NODES_GROUP } from '../../src/auth/pki.ts';
import type { KeyPair } from '../../src/auth/pki.ts';
import { systemClock } from '../../src/base/clock.ts';
import { execute, run, start } from '../../src/base/exec.ts';
import { PODS } from '../../src/client/resources.ts';
import { namesOf } from '../../src/network/linux/commands.ts';
import { hides, make, shows, works } from '../attack/support/attempt.ts';
import type { Verdict } from '../attack/support/attempt.ts';
import { KUBECTL_ATTEMPTS } from '../attack/attempts/running-pod.ts';
import {
  CONNECT_WAIT_SECONDS,
  POD,
  REFUSED_WAIT_SECONDS,
  SERVED,
  TARGET,
  answer,
  selfSigned,
  showsCanary,
} from '../attack/support/cluster-scene.ts';
import { startClusterScene } from '../attack/support/cluster-scene.ts';
import type { ClusterAttempt, ClusterScene } from '../attack/support/cluster-scene.ts';
import { requestText } from '../attack/support/knock.ts';
import type { Upgrade } from '../attack/support/knock.ts';
import type { Who } from '../attack/support/world.ts';
import { createHost } from './support/host.ts';

/**
 * Goal: a tenant gets nothing of another's running VM, nor of the node under both. Method: one
 * cluster, a pod of each tenant. Attempts are made with kubectl, with requests by hand, at the
 * kubelet's port and from inside the attacker's pod; each has a control that would show it.
 */
let scene: ClusterScene;
let apiServer: KeyPair;

before(async () => {
  scene = await startClusterScene();
  const read = (name: string) => readFile(join(scene.paths.pki, name), 'utf8');
  const [cert, key] = [await read('kubelet-client.crt'), await read('kubelet-client.key')];
  apiServer = { cert, key };
});
after(() => scene?.[Symbol.asyncDispose]());

/** Attempts change nothing, so several are made at a time. */
const AT_A_TIME = 4;

async function attempt(attempts: ClusterAttempt[]): Promise<void> {
  const wrong: string[] = [];
  const rest = [...attempts];
  const worker = async () => {
    for (let one = rest.shift(); one; one = rest.shift()) {
      const { name, leak, blind } = await make(one, scene);
      if (leak !== undefined) wrong.push(`${name}: GETS THROUGH: ${leak}`);
      if (blind !== undefined) wrong.push(`${name}: its control fails: ${blind}`);
    }
  };
  await Promise.all(Array.from({ length: AT_A_TIME }, worker));
  assert.deepEqual(wrong, []);
}

test(`kubectl: ${KUBECTL_ATTEMPTS.length} attempts at a running pod`, () =>
  attempt(KUBECTL_ATTEMPTS));

// --- Streams by hand -------------------------------------------------------------------------

/** What a client says who speaks HTTP itself, of a pod's streams. */
interface Stream {
  path: string;
  upgrade?: Upgrade;
  protocol?: string;
}

const RUN = `command=cat&command=${encodeURIComponent(SERVED.file)}&stdout=true`;
const streams = (paths: Record<'log' | 'exec' | 'attach' | 'forward', string>): Stream[] => [
  { path: paths.log },
  { path: `${paths.exec}?${RUN}`, upgrade: 'websocket', protocol: 'v5.channel.k8s.io' },
  { path: `${paths.exec}?${RUN}`, upgrade: 'websocket', protocol: 'v4.channel.k8s.io' },
  { path: `${paths.exec}?${RUN}`, upgrade: 'spdy', protocol: 'v4.channel.k8s.io' },
  { path: `${paths.attach}?stdout=true`, upgrade: 'websocket', protocol: 'v5.channel.k8s.io' },
  { path: `${paths.attach}?stdout=true`, upgrade: 'spdy', protocol: 'v4.channel.k8s.io' },
  {
    ...{ path: `${paths.forward}?ports=${SERVED.port}`, upgrade: 'websocket' },
    protocol: 'v4.channel.k8s.io',
  },
  { path: paths.forward, upgrade: 'spdy', protocol: 'portforward.k8s.io' },
];

/** Streams over SPDY and forwarded ports say nothing before the client does. */
const isSilent = ({ path, upgrade }: Stream) => upgrade === 'spdy' || /port-?forward/i.test(path);

const isServed =
  (stream: Stream): Verdict<ClusterScene> =>
  (got, here) => {
    if (stream.upgrade && got.status !== 101) return `${got.status} ${got.text.slice(0, 300)}`;
    return isSilent(stream) || got.text.includes(here.canary)
      ? undefined
      : `no canary: ${got.text}`;
  };

const untilOf = (stream: Stream) =>
  isSilent(stream) ? { until: (text: string) => text.includes('\r\n\r\n') } : {};

const nameOf = ({ path, upgrade, protocol }: Stream) =>
  `${upgrade ?? 'plain'} ${protocol ?? ''} ${path}`;

const isDenied: Verdict<ClusterScene> = ({ status, text }) =>
  [401, 403].includes(status) ? undefined : `${status} ${text.slice(0, 300)}`;

const API_STREAMS = streams({
  ...{ log: `${POD}/log`, exec: `${POD}/exec` },
  ...{ attach: `${POD}/attach`, forward: `${POD}/portforward` },
});

const toApi =
  (stream: Stream, isAnonymous = false) =>
  ({ knock, token, cluster }: ClusterScene, who: Who) => {
    const credential = isAnonymous ? {} : { token: token(who) };
    const request = requestText(stream.path, { ...stream, ...credential });
    return knock({ port: cluster.apiPort, request, ...untilOf(stream) });
  };

const API: ClusterAttempt[] = API_STREAMS.flatMap((stream) => [
  {
    name: nameOf(stream),
    attack: toApi(stream),
    expect: isDenied,
    control: { by: ['alice'], expect: isServed(stream) },
  },
  {
    name: `${nameOf(stream)}, by nobody`,
    attack: toApi(stream, true),
    by: ['bob'],
    expect: isDenied,
    control: { by: ['alice'], try: toApi(stream), expect: isServed(stream) },
  },
]);

test(`API server: ${API.length} attempts at streams by hand`, () => attempt(API));

// --- The kubelet's port ----------------------------------------------------------------------

interface Shown {
  pair?: KeyPair;
  token?: string;
}

/** What somebody may show at the kubelet's port who is not the API server. */
const SHOWN: Record<string, (scene: ClusterScene) => Shown> = {
  nothing: () => ({}),
  'a pod account token': ({ token }) => ({ token: token('robot') }),
  'an identity token': ({ token }) => ({ token: token('bob') }),
  "the API server's name, self-signed": () => ({
    pair: selfSigned(KUBELET_CLIENT_USER, [MASTERS_GROUP]),
  }),
  "a person's certificate": ({ certificate }) => ({ pair: certificate('bob', [MASTERS_GROUP]) }),
  "a node's certificate": ({ certificate }) => ({
    pair: certificate('system:node:other', [NODES_GROUP]),
  }),
  'a name that only looks the same': ({ certificate }) => ({
    pair: certificate(`${KUBELET_CLIENT_USER}\0.example`, [KUBELET_CLIENT_USER]),
  }),
};

/** Nothing is said in the session, or only that it is refused. */
const isShutOut: Verdict<ClusterScene> = ({ status, text }) =>
  [0, 401, 403].includes(status) ? undefined : `${status} ${text.slice(0, 300)}`;

const KUBELET_STREAMS = streams({
  ...{ log: '/containerLogs/acme/web/main', exec: '/exec/acme/web/main' },
  ...{ attach: '/attach/acme/web/main', forward: '/portForward/acme/web' },
});
/** Served to the API server; the rest is told to be absent to nobody else. */
const KUBELET_PATHS = ['/pods', '/stats/summary', '/healthz', '/metrics'];
const KUBELET_ABSENT = [
  ...['/metrics/cadvisor', '/runningpods/', '/logs/', '/configz', '/debug/pprof/'],
  ...['/run/acme/web/main?cmd=id', '/checkpoint/acme/web/main', '/spec/'],
];

function atKubelet(stream: Stream, expect: Verdict<ClusterScene>): ClusterAttempt[] {
  const say = (here: ClusterScene, { pair, token }: Shown) => {
    const request = requestText(stream.path, { ...stream, ...(token ? { token } : {}) });
    const port = here.cluster.kubeletPort;
    return here.knock({ port, request, ...(pair ? { pair } : {}), ...untilOf(stream) });
  };
  return Object.entries(SHOWN).map(([what, show]) => ({
    name: `${nameOf(stream)} with ${what}`,
    attack: (here) => say(here, show(here)),
    by: ['bob'],
    expect: isShutOut,
    control: { by: ['operator'], try: (here) => say(here, { pair: apiServer }), expect },
  }));
}

const isAbsent: Verdict<ClusterScene> = ({ status, text }) =>
  status === 404 ? undefined : `${status} ${text.slice(0, 300)}`;

const KUBELET: ClusterAttempt[] = [
  ...KUBELET_STREAMS.flatMap((stream) => atKubelet(stream, isServed(stream))),
  ...KUBELET_PATHS.flatMap((path) => atKubelet({ path }, works)),
  ...KUBELET_ABSENT.flatMap((path) => atKubelet({ path }, isAbsent)),
];

test(`kubelet: ${KUBELET.length} attempts at its port`, () => attempt(KUBELET));

// --- From inside a pod -----------------------------------------------------------------------

const inPod =
  (command: string | ((scene: ClusterScene) => string)) => (here: ClusterScene, who: Who) =>
    here.inPod(who, typeof command === 'string' ? command : command(here));

/** By the operator, on the machine itself. */
const onNode =
  (command: string, args: (scene: ClusterScene) => string[]) => async (here: ClusterScene) => {
    const { exitCode, stdout, stderr } = await execute(command, args(here));
    return answer(exitCode === 0 ? 200 : 403, stdout + stderr);
  };

const isMissing: Verdict<ClusterScene> = ({ status, text }) =>
  status === 403 && text.includes('No such file') ? undefined : `${status} ${text.slice(0, 300)}`;

/** Nobody answered: it is not the program that failed. */
const isUnreachable: Verdict<ClusterScene> = ({ status, text }) =>
  status === 403 && /timed out|refused|unreachable/.test(text)
    ? undefined
    : `${status} ${text.slice(0, 300)}`;

/** What the machine has, and a guest must not: its sockets, its VMs and their links. */
const tellsNode =
  (text: (scene: ClusterScene) => string): Verdict<ClusterScene> =>
  (got, here) =>
    got.text.includes(text(here)) ? `tells ${text(here)}` : works(got, here);

const linkOf = ({ paths }: ClusterScene) => namesOf(paths.network).linkPattern.replace('*', '');
const uidOf = ({ target }: ClusterScene) => target.metadata.uid ?? '';
const rootOf = ({ paths }: ClusterScene) => paths.root;

const fetchFrom = (
  place: (scene: ClusterScene) => { host: string; port: number; path?: string },
  waitSeconds = REFUSED_WAIT_SECONDS,
) =>
  inPod((here) => {
    const { host, port, path = '/' } = place(here);
    const nc = `nc -w ${waitSeconds} ${host} ${port}`;
    return `printf 'GET ${path} HTTP/1.0\\r\\n\\r\\n' | ${nc}`;
  });
const CATALOG = '/v2/_catalog';
const METADATA = '169.254.169.254';
const METADATA_HOST = 9;

const byBob = { by: ['bob' as const] };
const byAlice = { by: ['alice' as const] };
const byOperator = { by: ['operator' as const] };

const sockets = (['hyperdSocket', 'supervisorSocket'] as const).map((name): ClusterAttempt => ({
  ...{ name, ...byBob },
  attack: inPod(({ paths }) => `ls -l ${paths[name]}`),
  expect: isMissing,
  control: { ...byOperator, try: onNode('ls', ({ paths }) => ['-l', paths[name]]) },
}));

const registry = ['NODE', 'GATEWAY', '127.0.0.1'].map((place): ClusterAttempt => ({
  ...{ name: `the node's registry at ${place}`, ...byBob },
  attack: fetchFrom((here) => {
    const gateway = (here.target.status?.podIP ?? '').replace(/\d+$/, '1');
    const host = place.replace('NODE', here.nodeAddress).replace('GATEWAY', gateway);
    return { host, port: here.cluster.registryPort, path: CATALOG };
  }),
  expect: isUnreachable,
  control: {
    ...byOperator,
    try: async (here) => {
      const got = await fetch(`http://127.0.0.1:${here.cluster.registryPort}${CATALOG}`);
      return answer(got.status, await got.text());
    },
    expect: shows('demo/busybox'),
  },
}));

const kubeletFromPod = Object.entries(SHOWN).map(([what, show]): ClusterAttempt => ({
  ...{ name: `the kubelet's port with ${what}`, ...byBob },
  attack: (here) => {
    const { pair, token } = show(here);
    const request = requestText('/containerLogs/acme/web/main', token ? { token } : {});
    const port = here.cluster.kubeletPort;
    const asked = { port, request, ...(pair ? { pair } : {}) };
    return here.knockFromPod(asked, REFUSED_WAIT_SECONDS);
  },
  expect: isShutOut,
  // The same way out of the pod leads to the API server.
  control: {
    ...byOperator,
    try: async (here) => {
      const pair = here.certificate('kubernetes-admin', [MASTERS_GROUP]);
      const request = requestText(`${POD}/log`, {});
      return here.knockFromPod({ port: here.cluster.apiPort, request, pair });
    },
    expect: showsCanary,
  },
}));

const fromPodToApi =
  (token: (scene: ClusterScene) => string | undefined) => (here: ClusterScene) => {
    const shown = token(here);
    const request = requestText(`${POD}/log`, shown ? { token: shown } : {});
    return here.knockFromPod({ port: here.cluster.apiPort, request });
  };

const apiFromPod = (['nobody', 'robot', 'bob'] as const).map((who): ClusterAttempt => ({
  ...{ name: `the API server by ${who}`, ...byBob },
  attack: fromPodToApi(({ token }) => (who === 'nobody' ? undefined : token(who))),
  expect: isDenied,
  control: { ...byAlice, try: fromPodToApi(({ token }) => token('alice')), expect: showsCanary },
}));

const INSIDE: ClusterAttempt[] = [
  ...sockets,
  {
    ...{ name: 'any socket', ...byBob },
    attack: inPod('find / -type s 2>/dev/null; true'),
    expect: hides('/'),
    control: {
      ...byOperator,
      try: onNode('find', ({ paths }) => [paths.run, '-type', 's']),
      expect: shows('/hyperd.sock'),
    },
  },
  {
    ...{ name: 'processes and what they were started with', ...byBob },
    attack: inPod('cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ /proc/net/* 2>/dev/null; true'),
    expect: tellsNode(rootOf),
    control: { ...byAlice, expect: showsCanary },
  },
  {
    ...{ name: "the machine's processes", ...byBob },
    attack: inPod('ps -o args; cat /proc/[0-9]*/mountinfo 2>/dev/null; true'),
    expect: tellsNode(rootOf),
    control: {
      ...byOperator,
      try: onNode('ps', () => ['-eo', 'args']),
      expect: shows<ClusterScene>(rootOf),
    },
  },
  {
    ...{ name: 'links of other VMs', ...byBob },
    attack: inPod('ls /sys/class/net /sys/class/block; cat /proc/net/dev /proc/net/route'),
    expect: tellsNode(linkOf),
    control: {
      ...byOperator,
      try: onNode('ls', () => ['/sys/class/net']),
      expect: shows<ClusterScene>(linkOf),
    },
  },
  {
    ...{ name: 'names of other VMs', ...byBob },
    attack: inPod('find /sys /proc -maxdepth 5 2>/dev/null; cat /sys/fs/cgroup/cgroup.procs; true'),
    expect: tellsNode(uidOf),
    control: {
      ...byOperator,
      try: onNode('find', ({ paths }) => [join(paths.hyperd, 'pods'), '-maxdepth', '1']),
      expect: shows<ClusterScene>(uidOf),
    },
  },
  {
    ...{ name: 'files of the other pod', ...byBob },
    attack: inPod('find / -xdev -type f -size -64k -exec cat {} + 2>/dev/null; true'),
    expect: works,
    control: { ...byAlice, expect: showsCanary },
  },
  ...registry,
  ...kubeletFromPod,
  ...apiFromPod,
];

test(`inside a pod: ${INSIDE.length} attempts at what is around it`, () => attempt(INSIDE));

test("inside a pod: a cloud's metadata at its link-local address", async () => {
  await using host = await createHost(METADATA_HOST);
  const add = ['-n', host.namespace, 'addr', 'add', `${METADATA}/32`, 'dev', 'uplink0'];
  await run('ip', add);
  await run('ip', ['route', 'add', `${METADATA}/32`, 'via', host.address]);
  // Replies come in by a device that is not the default route's; whether a new one forwards is the
  // machine's setting, and where it does not, nothing is reached whatever the rules say.
  await writeFile(`/proc/sys/net/ipv4/conf/${host.device}/forwarding`, '1');
  const folder = join(scene.cluster.dataDir, 'metadata');
  await mkdir(folder);
  await writeFile(join(folder, 'index.html'), 'credentials of the machine');
  const serve = ['busybox', 'httpd', '-f', '-p', '80', '-h', folder];
  const child = start('nsenter', [`--net=/run/netns/${host.namespace}`, ...serve], {});
  const exited = once(child, 'exit');
  const fromNode = async () => {
    const got = await fetch(`http://${METADATA}:80/`);
    return answer(got.status, await got.text());
  };
  try {
    await retry(fromNode);
    const wanted = { expect: shows<ClusterScene>('credentials of the machine') };
    const attack = fetchFrom(() => ({ host: METADATA, port: 80 }));
    const there = fetchFrom(() => ({ host: host.address, port: 80 }), CONNECT_WAIT_SECONDS);
    await attempt([
      // The machine reaches it, and the pod its server at another address.
      ...[
        { ...byOperator, try: fromNode },
        { ...byBob, try: there },
      ].map((control) => {
        const name = 'metadata';
        return {
          name,
          ...byBob,
          attack,
          expect: isUnreachable,
          control: { ...control, ...wanted },
        };
      }),
    ]);
  } finally {
    child.kill('SIGKILL');
    await exited;
  }
});

/** Until somebody listens there. */
async function retry(what: () => Promise<unknown>): Promise<void> {
  for (let tries = 1; ; tries += 1) {
    try {
      await what();
      return;
    } catch (error) {
      if (tries >= 100) throw error;
      await systemClock.sleep(50);
    }
  }
}

test('the attacked pod has gone on as if nothing had been', async () => {
  const now = await scene.cluster.client.get(PODS, TARGET);
  assert.equal(now.metadata.uid, scene.target.metadata.uid);
  assert.equal(now.status?.phase, 'Running');
  assert.equal(now.status?.containerStatuses?.[0]?.restartCount, 0);
});
