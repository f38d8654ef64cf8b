import type { Clock } from '../../base/clock.ts';
import { HypervisorError } from './hypervisor.ts';

/** Runs `work` under a signal that aborts with `signal`, or with an error after `timeoutMs`. */
export async function withDeadline<T>(
  clock: Clock,
  timeoutMs: number,
  what: string,
  signal: AbortSignal | undefined,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const deadline = new AbortController();
  const timer = clock.after(timeoutMs, () => {
    deadline.abort(new HypervisorError('Failed', `${what} took longer than ${timeoutMs} ms`));
  });
  const signals = signal === undefined ? [deadline.signal] : [deadline.signal, signal];
  try {
    return await work(AbortSignal.any(signals));
  } finally {
    timer.cancel();
  }
}
