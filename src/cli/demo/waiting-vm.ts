import type { PoolStatus } from '../../api/hyperd.ts';
import { systemClock } from '../../base/clock.ts';
import type { HyperdClient } from '../../client/hyperd.ts';

const LOOK_MS = 50;

/**
 * Resolves with true when a VM waits for a pod; with false when none will, or none did in time. The
 * first one of a kind waits some seconds after the pods that were first of it: the template comes first.
 */
export async function waitForWaitingVm(
  hyperd: Pick<HyperdClient, 'pools'>,
  timeoutMs: number,
): Promise<boolean> {
  const deadlineMs = systemClock.monotonicMs() + timeoutMs;
  for (;;) {
    const pools = await hyperd.pools();
    if (pools.some(({ waiting }) => waiting > 0)) return true;
    const isComing = ({ wanted, making }: PoolStatus) => wanted > 0 || making > 0;
    if (!pools.some(isComing) || systemClock.monotonicMs() > deadlineMs) return false;
    await systemClock.sleep(LOOK_MS);
  }
}
