import type { Pod } from '../../api/types.generated.ts';
import type { Clock } from '../../base/clock.ts';
import { describeError } from '../../base/log.ts';
import type { Log } from '../../base/log.ts';
import type { Store } from '../../store/store.ts';
import { nothing } from './amounts.ts';
import type { UsageMeter } from './meter.ts';

/**
 * What pods really use, as their nodes tell: asked of every node with tenants' pods, once a minute.
 * Unlike what is requested it is an estimate: what happens between the last question and the end of
 * a pod, or while no server runs, is not in it.
 */
export interface UsageSamplerOptions {
  store: Store;
  meter: Pick<UsageMeter, 'addMeasured'>;
  /** The kubelet's `/stats/summary`. Rejects where there is none. */
  readSummary: (node: string, signal: AbortSignal) => Promise<unknown>;
  clock: Clock;
  log: Log;
  signal: AbortSignal;
}

const INTERVAL_MS = 60_000;
const TIMEOUT_MS = 15_000;
const NODES_AT_ONCE = 8;
/** Nobody is believed to use more: a node may be broken into. */
const CPUS_MAX = 1024;
const MEMORY_BYTES_MAX = 2 ** 44;
/** A pod that was silent for longer is not taken to have used its memory all the while. */
const GAP_MAX_MS = 5 * INTERVAL_MS;

interface Sample {
  cpuNanos: number;
  atMs: number;
}

interface Summary {
  pods?: {
    podRef?: { uid?: string };
    cpu?: { usageCoreNanoSeconds?: number };
    memory?: { workingSetBytes?: number };
  }[];
}

/** Runs until the signal aborts. */
export async function runUsageSampler(options: UsageSamplerOptions): Promise<void> {
  const { clock, log, signal } = options;
  let samples = new Map<string, Sample>();
  while (!signal.aborted) {
    try {
      samples = await sampleAll(options, samples);
    } catch (error) {
      if (!signal.aborted) log.warn('Cannot measure use', { error: describeError(error) });
    }
    await clock.sleep(INTERVAL_MS, signal).catch(() => {});
  }
}

/** @returns the samples of the pods that there are still */
async function sampleAll(
  options: UsageSamplerOptions,
  before: ReadonlyMap<string, Sample>,
): Promise<Map<string, Sample>> {
  const tenantOfPod = podsByNode(options.store);
  const after = new Map<string, Sample>();
  const nodes = [...tenantOfPod.keys()];
  const work = async () => {
    for (let node = nodes.pop(); node !== undefined; node = nodes.pop()) {
      const tenants = tenantOfPod.get(node) as Map<string, string>;
      for (const uid of tenants.keys()) {
        const last = before.get(uid);
        if (last) after.set(uid, last);
      }
      const summary = await summaryOf(options, node);
      if (summary) take(options, summary, tenants, after);
    }
  };
  await Promise.all(Array.from({ length: NODES_AT_ONCE }, work));
  return after;
}

/** Of tenants' running pods: node → uid → tenant. */
function podsByNode(store: Store): Map<string, Map<string, string>> {
  const found = new Map<string, Map<string, string>>();
  for (const { object, partition } of store.list('pods').entries) {
    const { spec, metadata } = object as Pod;
    if (!partition || !spec?.nodeName || !metadata.uid) continue;
    const pods = found.get(spec.nodeName) ?? new Map<string, string>();
    found.set(spec.nodeName, pods.set(metadata.uid, partition));
  }
  return found;
}

async function summaryOf(
  { readSummary, signal, clock, log }: UsageSamplerOptions,
  node: string,
): Promise<Summary | undefined> {
  const timeout = new AbortController();
  const timer = clock.after(TIMEOUT_MS, () => timeout.abort());
  try {
    return (await readSummary(node, AbortSignal.any([signal, timeout.signal]))) as Summary;
  } catch (error) {
    log.debug('A node does not tell what its pods use', { node, error: describeError(error) });
    return undefined;
  } finally {
    timer.cancel();
  }
}

function take(
  { meter, clock }: UsageSamplerOptions,
  summary: Summary,
  tenants: ReadonlyMap<string, string>,
  samples: Map<string, Sample>,
): void {
  const nowMs = clock.nowMs();
  const told = Array.isArray(summary?.pods) ? summary.pods : [];
  for (const each of told) {
    const uid = String(each?.podRef?.uid);
    // A node speaks for its own pods alone, and once of each.
    const tenant = tenants.get(uid);
    const cpuNanos = amountOf(each?.cpu?.usageCoreNanoSeconds, Number.MAX_SAFE_INTEGER);
    const last = samples.get(uid);
    if (tenant === undefined || cpuNanos === undefined || last?.atMs === nowMs) continue;
    samples.set(uid, { cpuNanos, atMs: nowMs });
    if (!last) continue;
    const passedMs = nowMs - last.atMs;
    // Less than before: the VM is another one.
    const nanos = cpuNanos >= last.cpuNanos ? cpuNanos - last.cpuNanos : cpuNanos;
    const memory = amountOf(each?.memory?.workingSetBytes, MEMORY_BYTES_MAX) ?? 0;
    meter.addMeasured(tenant, {
      ...nothing(),
      cpuUsed: BigInt(Math.min(Math.round(nanos / 1000), passedMs * 1000 * CPUS_MAX)),
      memoryUsed: BigInt(memory) * BigInt(Math.min(passedMs, GAP_MAX_MS)),
    });
  }
}

function amountOf(value: unknown, max: number): number | undefined {
  return typeof value === 'number' && value >= 0 && value <= max ? Math.round(value) : undefined;
}
