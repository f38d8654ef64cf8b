import { isDeepStrictEqual } from 'node:util';
import type { Pod } from '../api/types.generated.ts';
import { describeError } from '../base/log.ts';
import type { Log } from '../base/log.ts';
import type { NodeContext } from './context.ts';
import type { ReferencedObjects } from './objects.ts';
import { isFileVolume, volumeFiles } from './volumes.ts';

/**
 * Keeps ConfigMap, Secret, projected and downward API volumes of a running pod up to date, as
 * Kubernetes does: within about a minute. The version of each content is kept by hyperd with the
 * volume, so a kubelet that was restarted goes on counting.
 */
const VOLUME_REFRESH_INTERVAL_MS = 60_000;

/** Refreshes what is due and returns in how many milliseconds it wants to be asked again. */
export type VolumeRefresher = (pod: Pod, sandboxId: string) => number;

export function createVolumeRefresher(
  context: NodeContext,
  log: Log,
  signal: AbortSignal,
): VolumeRefresher {
  let lastMs: number | undefined;
  let lastVersion: string | undefined;
  let running: Promise<void> | undefined;
  return (pod, sandboxId) => {
    const nowMs = context.clock.monotonicMs();
    const version = downwardVersion(pod);
    // The content is fresh at the start: the first refresh is an interval later.
    lastMs ??= nowMs;
    lastVersion ??= version;
    const leftMs = lastMs + VOLUME_REFRESH_INTERVAL_MS - nowMs;
    if (leftMs > 0 && version === lastVersion) return leftMs;
    if (running || signal.aborted) return VOLUME_REFRESH_INTERVAL_MS;
    lastMs = nowMs;
    lastVersion = version;
    running = refresh(context, pod, sandboxId)
      .catch((error: unknown) => {
        if (!signal.aborted) log.warn('volumes not refreshed', { error: describeError(error) });
      })
      .finally(() => (running = undefined));
    return VOLUME_REFRESH_INTERVAL_MS;
  };
}

async function refresh(context: NodeContext, pod: Pod, sandboxId: string): Promise<void> {
  const sandbox = context.sandboxes.get(sandboxId);
  if (sandbox?.phase !== 'running') return;
  const { hostIp, size } = context;
  const node = { cpuMillis: size.cpuCount * 1000, memoryBytes: size.memoryBytes };
  const downward = { pod, podIp: sandbox.address, hostIp, node };
  // What was read for another pod a moment ago may be older than what called for this refresh.
  const objects: ReferencedObjects = {
    ...context.objects,
    configMap: (namespace, name) => context.objects.configMap(namespace, name, 0),
    secret: (namespace, name) => context.objects.secret(namespace, name, 0),
  };
  for (const volume of pod.spec?.volumes ?? []) {
    const known = sandbox.spec.volumes.find((each) => each.name === volume.name);
    if (!isFileVolume(volume) || known?.type !== 'files') continue;
    const files = await volumeFiles(volume, { ...context, objects, downward });
    if (isDeepStrictEqual(files, known.content.files)) continue;
    const version = known.content.version + 1;
    await context.hyperd.writeVolume(sandboxId, volume.name, { version, files });
    await context.sandboxes.refresh(sandboxId);
  }
}

/** Changes when a downward API volume may: labels and annotations are all that can change. */
function downwardVersion({ spec, metadata }: Pod): string {
  const usesFields = spec?.volumes?.some(
    (volume) => volume.downwardAPI ?? volume.projected?.sources?.some((each) => each.downwardAPI),
  );
  return usesFields ? JSON.stringify([metadata.labels, metadata.annotations]) : '';
}
