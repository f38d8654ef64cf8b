import { defaultPolicy } from '../hyperd/supply/pool.ts';
import type { PoolPolicy } from '../hyperd/supply/pool.ts';
import { UsageError } from './errors.ts';

const FIXED = /^fixed:([1-9]\d{0,2})$/;

/** Checks what the command line says; it is kept as it was written. @throws UsageError */
export function parseWarmPool(text: string): string {
  if (text === 'adaptive' || text === 'off' || FIXED.test(text)) return text;
  throw new UsageError(
    `Cannot keep a warm pool "${text}": wanted adaptive, off, or fixed:N with N from 1 to 999`,
  );
}

/** What the machine's configuration says of VMs that wait for pods. */
export function warmPoolPolicy(text: string): PoolPolicy {
  const policy = defaultPolicy();
  const count = FIXED.exec(text)?.[1];
  if (count !== undefined) return { ...policy, kind: 'fixed', count: Number(count) };
  return { ...policy, kind: text === 'off' ? 'off' : 'adaptive' };
}
