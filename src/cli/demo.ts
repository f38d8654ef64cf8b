import type { Pod } from '../api/types.generated.ts';
import { systemClock } from '../base/clock.ts';
import { nameSuffix, systemRandom } from '../base/random.ts';
import { createClient } from '../client/client.ts';
import type { Client } from '../client/client.ts';
import { createHttpsTransport } from '../client/https.ts';
import type { HttpsTransport } from '../client/https.ts';
import { loadKubeconfig } from '../client/kubeconfig.ts';
import type { ClusterAccess } from '../client/kubeconfig.ts';
import { NAMESPACES, PODS } from '../client/resources.ts';
import { dataDirectory, dataPaths } from './config.ts';
import type { DataPaths } from './config.ts';
import { queryStatus } from './control.ts';
import { readConfig } from './data.ts';
import { pushDemoImage } from './demo/demo-image.ts';
import { execInPod } from './demo/exec.ts';
import { originOf, renderTimelines, timelineOf } from './demo/timeline.ts';
import type { Timeline } from './demo/timeline.ts';
import { waitForWaitingVm } from './demo/waiting-vm.ts';
import { UsageError } from './errors.ts';
import { withHyperd } from './local-pods.ts';
import { table } from './table.ts';
import { up } from './up.ts';

/** What one pod of the demo said of itself. */
interface PodStory {
  name: string;
  bootId: string;
  hostname: string;
  address: string;
  kernel: string;
  /** How the pod came to its VM: `warm`, `template` or `cold`. */
  origin: string;
  timeline: Timeline;
}

const FIRST_PODS = ['hello-1', 'hello-2'];
const NEXT_POD = 'hello-3';
/** Making a template and a VM of it takes 5 to 10 s under emulation. */
const WAITING_VM_TIMEOUT_MS = 10_000;
const TICK_COUNT = 3;
const WAIT_MS = 120_000;

/** Prints who it is, then a tick each second: something to follow. */
const SCRIPT = `
echo "boot_id=$(cat /proc/sys/kernel/random/boot_id)"
echo "hostname=$(hostname)"
echo "address=$(ip -4 -o addr show dev eth0 | awk '{print $4}')"
echo "kernel=$(uname -r)"
i=0
while true; do i=$((i + 1)); echo "tick $i"; sleep 1; done
`;

/** The main job from end to end. Resolves only if all of it happened. */
export async function demo(
  dataDir: string | undefined,
  options: { json?: boolean; keep?: boolean },
): Promise<void> {
  const paths = dataPaths(dataDirectory(dataDir));
  const startMs = systemClock.monotonicMs();
  const say = options.json ? () => {} : (text: string) => void process.stdout.write(`${text}\n`);
  const signal = AbortSignal.timeout(WAIT_MS);
  await ensureCluster(paths, say);
  const access = await loadKubeconfig(paths.adminKubeconfig);
  const transport = createHttpsTransport(access);
  const client = createClient(transport, { userAgent: 'hypernetes-demo' });
  const namespace = `demo-${nameSuffix(systemRandom)}`;
  try {
    const image = await makeImage(paths, say, signal);
    await client.create(NAMESPACES, {
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: { name: namespace },
    });
    const run = (names: string[]) =>
      runPods(client, transport, namespace, { names, image }, say, signal);
    const stories = await run(FIRST_PODS);
    assertOwnVms(stories);
    say(
      '\nEach pod is a virtual machine of its own: another kernel boot, host name and address.\n',
    );
    say(describeStories(stories));
    const first = stories[0]?.name ?? '';
    const exec = await runExec(access, { namespace, name: first }, say);
    if (exec !== stories[0]?.bootId)
      throw new Error(`exec in "${first}" is in another VM: ${exec}`);
    const followed = await followLog(transport, { namespace, name: first }, say, signal);
    const isVmWaiting = await withHyperd(paths.hyperdSocket, (hyperd) =>
      waitForWaitingVm(hyperd, WAITING_VM_TIMEOUT_MS),
    );
    say(isVmWaiting ? '\na VM waits for the next pod' : '\nno VM waits for a pod yet');
    stories.push(...(await run([NEXT_POD])));
    assertOwnVms(stories);
    say('\nWhat each start took, counted from the admission of the pod:\n');
    say(renderTimelines(stories));
    const seconds = Number(((systemClock.monotonicMs() - startMs) / 1000).toFixed(1));
    say(nextSteps(paths, { namespace, image, kept: options.keep ?? false, seconds }));
    const result = { namespace, image, pods: stories, exec, followed, seconds };
    if (options.json) process.stdout.write(`${JSON.stringify(result, null, 2)}\n`);
  } finally {
    if (!options.keep) await client.delete(NAMESPACES, { name: namespace }).catch(() => {});
    await transport.close();
  }
}

async function ensureCluster(paths: DataPaths, say: (text: string) => void): Promise<void> {
  if (await queryStatus(paths.supervisorSocket)) {
    say('the cluster runs already');
    return;
  }
  const startMs = systemClock.monotonicMs();
  await up(paths.root, { detach: true });
  const seconds = ((systemClock.monotonicMs() - startMs) / 1000).toFixed(1);
  say(`the cluster is up and its node Ready after ${seconds} s`);
}

async function makeImage(
  paths: DataPaths,
  say: (text: string) => void,
  signal: AbortSignal,
): Promise<string> {
  const config = await readConfig(paths);
  if (!config) throw new UsageError(`There is no cluster on ${paths.root}.`);
  const image = await pushDemoImage(config.registryPort, signal);
  say(`image ${image} is made of this machine's busybox`);
  return image;
}

async function runPods(
  client: Client,
  transport: HttpsTransport,
  namespace: string,
  { names, image }: { names: string[]; image: string },
  say: (text: string) => void,
  signal: AbortSignal,
): Promise<PodStory[]> {
  for (const name of names) await client.create(PODS, podManifest(namespace, name, image));
  const isOne = names.length === 1;
  const what = `${isOne ? 'pod' : 'pods'} ${names.join(' and ')} ${isOne ? 'is' : 'are'}`;
  say(`${what} created in namespace ${namespace}`);
  return Promise.all(
    names.map((name) => readStory(client, transport, { namespace, name }, signal)),
  );
}

function podManifest(namespace: string, name: string, image: string): Pod {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace, labels: { app: 'hypernetes-demo' } },
    spec: {
      terminationGracePeriodSeconds: 1,
      containers: [{ name: 'main', image, command: ['/bin/sh', '-c', SCRIPT] }],
    },
  };
}

async function readStory(
  client: Client,
  transport: HttpsTransport,
  key: { namespace: string; name: string },
  signal: AbortSignal,
): Promise<PodStory> {
  const pod = await waitForPod(client, key, signal, (candidate) => {
    return timelineOf(candidate)['first-byte'] !== undefined;
  });
  const log = await readLogUntil(transport, key, 'kernel=', signal);
  const value = (name: string) => new RegExp(`^${name}=(.*)$`, 'm').exec(log)?.[1] ?? '';
  const address = value('address').split('/')[0] ?? '';
  if (pod.status?.podIP !== address) {
    throw new Error(
      `Pod "${key.name}" has the address ${address}, its status says ${pod.status?.podIP}`,
    );
  }
  return {
    name: key.name,
    bootId: value('boot_id'),
    hostname: value('hostname'),
    address,
    kernel: value('kernel'),
    origin: originOf(pod),
    timeline: timelineOf(pod),
  };
}

/** Watches one pod until `done`; a pod that failed will not come to it. */
async function waitForPod(
  client: Client,
  key: { namespace: string; name: string },
  signal: AbortSignal,
  done: (pod: Pod) => boolean,
): Promise<Pod> {
  const fieldSelector = `metadata.name=${key.name}`;
  const { namespace } = key;
  for (;;) {
    const list = await client.list(PODS, { namespace, fieldSelector, signal });
    const events = client.watch(PODS, {
      namespace,
      fieldSelector,
      signal,
      resourceVersion: list.metadata.resourceVersion ?? '',
    });
    const current = list.items[0];
    if (current && done(current)) return current;
    for await (const { object } of events) {
      if (object.status?.phase === 'Failed') {
        throw new Error(
          `Pod "${key.name}" failed: ${object.status.message ?? object.status.reason}`,
        );
      }
      if (object.kind === 'Pod' && done(object)) return object;
    }
  }
}

async function readLogUntil(
  transport: HttpsTransport,
  key: { namespace: string; name: string },
  text: string,
  signal: AbortSignal,
): Promise<string> {
  let log = '';
  const path = `${podPath(key)}/log`;
  const response = await transport.request({
    method: 'GET',
    path,
    query: { follow: 'true' },
    signal,
  });
  for await (const chunk of response.body) {
    log += Buffer.from(chunk).toString('utf8');
    const start = log.indexOf(text);
    if (start >= 0 && log.includes('\n', start)) break;
  }
  return log;
}

function podPath({ namespace, name }: { namespace: string; name: string }): string {
  return `/api/v1/namespaces/${namespace}/pods/${name}`;
}

function assertOwnVms(stories: PodStory[]): void {
  for (const field of ['bootId', 'hostname', 'address'] as const) {
    const values = new Set(stories.map((story) => story[field]));
    if (values.size !== stories.length || values.has('')) {
      throw new Error(`The pods do not differ in ${field}: ${[...values].join(', ')}`);
    }
  }
}

function describeStories(stories: PodStory[]): string {
  const rows = stories.map(({ name, bootId, hostname, address, kernel }) => {
    return [name, bootId, hostname, address, kernel];
  });
  return table(['POD', 'KERNEL BOOT ID', 'HOST NAME', 'ADDRESS', 'KERNEL'], rows);
}

async function runExec(
  access: ClusterAccess,
  pod: { namespace: string; name: string },
  say: (text: string) => void,
): Promise<string> {
  const command = ['cat', '/proc/sys/kernel/random/boot_id'];
  const { stdout, exitCode } = await execInPod(access, pod, command);
  if (exitCode !== 0) throw new Error(`exec in pod "${pod.name}" ended with ${exitCode}`);
  say(`$ kubectl -n ${pod.namespace} exec ${pod.name} -- ${command.join(' ')}\n${stdout.trim()}`);
  return stdout.trim();
}

async function followLog(
  transport: HttpsTransport,
  pod: { namespace: string; name: string },
  say: (text: string) => void,
  signal: AbortSignal,
): Promise<string[]> {
  say(`$ kubectl -n ${pod.namespace} logs -f ${pod.name}`);
  const response = await transport.request({
    method: 'GET',
    path: `${podPath(pod)}/log`,
    query: { follow: 'true', tailLines: '1' },
    signal,
  });
  const ticks: string[] = [];
  for await (const chunk of response.body) {
    const lines = Buffer.from(chunk).toString('utf8').trimEnd().split('\n');
    for (const line of lines) say(line);
    ticks.push(...lines);
    if (ticks.length >= TICK_COUNT) break;
  }
  return ticks;
}

function nextSteps(
  paths: DataPaths,
  done: { namespace: string; image: string; kept: boolean; seconds: number },
): string {
  const { namespace, image, kept, seconds } = done;
  const lines = [
    `All of it took ${seconds} s. What to type next:`,
    '',
    `  export KUBECONFIG=${paths.adminKubeconfig}`,
    kept ? `  kubectl -n ${namespace} get pods -o wide` : '  kubectl get nodes -o wide',
    `  kubectl run shell -it --image ${image} -- sh`,
    '  ./hypernetes status',
    '  ./hypernetes down',
  ];
  return lines.join('\n');
}
