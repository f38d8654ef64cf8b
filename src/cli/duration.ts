import { UsageError } from './errors.ts';

const UNIT_MS: Record<string, number> = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/**
 * A duration of one unit, such as 30m, 24h or 7d, in milliseconds.
 * @param option where it was given, for the error
 */
export function parseDuration(text: string, option: string): number {
  const [, count, unit = ''] = /^(\d{1,6})([smhd])$/.exec(text) ?? [];
  if (count) return Number(count) * (UNIT_MS[unit] ?? 0);
  throw new UsageError(`Cannot read ${option} "${text}": write it as 30m, 24h or 7d.`);
}
