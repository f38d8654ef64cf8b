import type { Clock } from '../../base/clock.ts';
import type { Descriptor } from './manifest.ts';
import type { TellProgress } from './store.ts';

/** For eyes: more often is not seen. */
const INTERVAL_MS = 100;

/** Tells of one blob how much of it is done: its beginning, its end, and in between seldom enough. */
export function tellEverySoOften(
  { clock, tell }: { clock: Clock; tell?: TellProgress | undefined },
  { digest, size: totalBytes }: Descriptor,
): (doneBytes: number) => void {
  let toldMs = -INTERVAL_MS;
  return (doneBytes) => {
    const nowMs = clock.monotonicMs();
    const isDue = nowMs - toldMs >= INTERVAL_MS || doneBytes >= totalBytes;
    if (!tell || !isDue) return;
    toldMs = nowMs;
    tell({ type: 'layer', digest, doneBytes, totalBytes });
  };
}
