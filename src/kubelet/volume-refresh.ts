import { isDeepStrictEqual } from 'node:util';
import type { Pod } from '../api/types.generated.ts';
import { describeError } from '../base/log.ts';
import type { Log } from '../base/log.ts';
import type { NodeContext } from './context.ts';
import { isFileVolume, volumeFiles } from './volumes.ts';

/**
 * Keeps ConfigMap, Secret, projected and downward API volumes of a running pod up to date, as
 * Kubernetes does: within about a minute. The version of each content is kept by hyperd with the
 * volume, so a kubelet that was restarted goes on counting.
 */
export const VOLUME_REFRESH_INTERVAL_MS = 60_000;

export function createVolumeRefresher(
  context: NodeContext,
  log: Log,
  signal: AbortSignal,
): (pod: Pod, sandboxId: string) => void {
  let lastMs: number | undefined;
  let lastVersion: string | undefined;
  let running: Promise<void> | undefined;
  return (pod, sandboxId) => {
    const { clock } = context;
    const version = JSON.stringify([pod.metadata.labels, pod.metadata.annotations]);
    const isDue = lastMs === undefined || clock.monotonicMs() - lastMs >= VOLUME_REFRESH_INTERVAL_MS;
    // The first look is a full interval after the start: the content is fresh then.
    if (lastMs === undefined) {
      lastMs = clock.monotonicMs();
      lastVersion = version;
      return;
    }
    if ((!isDue && version === lastVersion) || running || signal.aborted) return;
    lastMs = clock.monotonicMs();
    lastVersion = version;
    running = refresh(context, pod, sandboxId)
      .catch((error: unknown) => {
        if (!signal.aborted) log.warn('volumes not refreshed', { error: describeError(error) });
      })
      .finally(() => (running = undefined));
  };
}

async function refresh(context: NodeContext, pod: Pod, sandboxId: string): Promise<void> {
  const sandbox = context.sandboxes.get(sandboxId);
  if (sandbox?.phase !== 'running') return;
  const { hostIp, size } = context;
  const node = { cpuMillis: size.cpuCount * 1000, memoryBytes: size.memoryBytes };
  const downward = { pod, podIp: sandbox.address, hostIp, node };
  for (const volume of pod.spec?.volumes ?? []) {
    const known = sandbox.spec.volumes.find((each) => each.name === volume.name);
    if (!isFileVolume(volume) || known?.type !== 'files') continue;
    const files = await volumeFiles(volume, { ...context, downward });
    if (isDeepStrictEqual(files, known.content.files)) continue;
    const version = known.content.version + 1;
    await context.hyperd.writeVolume(sandboxId, volume.name, { version, files });
  }
  await context.sandboxes.refresh(sandboxId);
}
