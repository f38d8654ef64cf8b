import type { Pod } from '../src/api/types.generated.ts';
import { systemClock } from '../src/base/clock.ts';
import type { DataPaths } from '../src/cli/config.ts';
import { createHttpsTransport } from '../src/client/https.ts';
import type { HttpsTransport } from '../src/client/https.ts';
import { CONFIG_MAPS, PODS } from '../src/client/resources.ts';
import { withCluster } from './context.ts';
import type { BenchContext } from './context.ts';
import { describeMachine, series } from './report.ts';
import type { BenchReport } from './report.ts';

const POD_COUNT = 10_000;
const CLIENT_COUNT = 64;
const WATCHER_COUNT = 1_000;
/** A server bounds the streams of one connection; clients as many as these have several. */
const WATCHERS_PER_CONNECTION = 50;
const FAN_OUT_ROUNDS = 20;
const LIST_ROUNDS = 10;

/** The API over TLS from one client process: create, get, list, watch. Pods are not scheduled. */
export function benchApi(paths: DataPaths, count = POD_COUNT): Promise<BenchReport> {
  return withCluster(paths, async (context) => {
    const createMs = await inParallel(count, CLIENT_COUNT, (index) =>
      context.client.create(PODS, unscheduledPod(context.namespace, `p-${index}`)),
    );
    const getMs = await inParallel(Math.min(count, 2000), CLIENT_COUNT, (index) =>
      context.client.get(PODS, { namespace: context.namespace, name: `p-${index}` }),
    );
    const listMs: number[] = [];
    for (let round = 0; round < LIST_ROUNDS; round += 1) listMs.push(await timeList(context));
    const fanOutMs = await timeFanOut(context);
    return {
      name: 'api',
      machine: describeMachine(context.accelerator),
      series: [
        series(`create pod, ${CLIENT_COUNT} at a time`, createMs.latencies),
        series('creates per second', [createMs.perSecond], '1/s'),
        series(`get pod, ${CLIENT_COUNT} at a time`, getMs.latencies),
        series('gets per second', [getMs.perSecond], '1/s'),
        series(`list ${count} pods, whole answer`, listMs),
        series(`one change seen by all of ${WATCHER_COUNT} watches`, fanOutMs),
      ],
      notes: ['The client shares the machine with the server, and its work is part of the times.'],
    };
  });
}

function unscheduledPod(namespace: string, name: string): Pod {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace, labels: { app: 'bench', tier: 'backend' } },
    spec: {
      schedulerName: 'nobody',
      containers: [
        {
          name: 'main',
          image: 'registry.example/bench/app:v1',
          env: [{ name: 'MODE', value: 'bench' }],
          resources: { requests: { cpu: '100m', memory: '64Mi' } },
        },
      ],
    },
  };
}

async function inParallel(
  count: number,
  clients: number,
  operation: (index: number) => Promise<unknown>,
): Promise<{ latencies: number[]; perSecond: number }> {
  const latencies: number[] = [];
  let next = 0;
  const startMs = systemClock.monotonicMs();
  const work = async () => {
    while (next < count) {
      const index = next;
      next += 1;
      const beganMs = systemClock.monotonicMs();
      await operation(index);
      latencies.push(systemClock.monotonicMs() - beganMs);
    }
  };
  await Promise.all(Array.from({ length: clients }, work));
  return { latencies, perSecond: (1000 * count) / (systemClock.monotonicMs() - startMs) };
}

async function timeList({ transport, namespace }: BenchContext): Promise<number> {
  const startMs = systemClock.monotonicMs();
  const path = `/api/v1/namespaces/${namespace}/pods`;
  const response = await transport.request({
    method: 'GET',
    path,
    headers: { accept: 'application/json' },
  });
  let size = 0;
  for await (const chunk of response.body) size += chunk.length;
  if (response.status !== 200 || size === 0) throw new Error(`list answered ${response.status}`);
  return systemClock.monotonicMs() - startMs;
}

/** From a write's acknowledgement-to-be until the last of all watches has its event. */
async function timeFanOut({ client, access, namespace }: BenchContext): Promise<number[]> {
  const stop = new AbortController();
  const transports = Array.from({ length: WATCHER_COUNT / WATCHERS_PER_CONNECTION }, () =>
    createHttpsTransport(access),
  );
  const path = `/api/v1/namespaces/${namespace}/configmaps`;
  let arrived = 0;
  let round = Promise.withResolvers<number>();
  const watchOne = async (transport: HttpsTransport) => {
    const query = { watch: 'true', resourceVersion: '0' };
    const response = await transport.request({ method: 'GET', path, query, signal: stop.signal });
    for await (const chunk of response.body) {
      arrived += Buffer.from(chunk).toString('utf8').split('"fan-out"').length - 1;
      if (arrived >= WATCHER_COUNT) round.resolve(systemClock.monotonicMs());
    }
  };
  const watches = transports.flatMap((transport) =>
    Array.from({ length: WATCHERS_PER_CONNECTION }, () => watchOne(transport).catch(() => {})),
  );
  const times: number[] = [];
  const data = (value: number) => ({
    apiVersion: 'v1',
    kind: 'ConfigMap',
    data: { value: String(value) },
  });
  await client.create(CONFIG_MAPS, { ...data(-1), metadata: { name: 'fan-out', namespace } });
  await round.promise;
  for (let index = 0; index < FAN_OUT_ROUNDS; index += 1) {
    arrived = 0;
    round = Promise.withResolvers();
    const startMs = systemClock.monotonicMs();
    await client.update(CONFIG_MAPS, { ...data(index), metadata: { name: 'fan-out', namespace } });
    times.push((await round.promise) - startMs);
  }
  stop.abort();
  await Promise.all(watches);
  await Promise.all(transports.map((transport) => transport.close()));
  return times;
}
