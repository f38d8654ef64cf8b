import { systemClock } from '../base/clock.ts';
import { table } from './table.ts';

/** Everything is printed as JSON for programs, or as text for people. */
export function print(isJson: boolean | undefined, value: unknown, text: () => string): void {
  process.stdout.write(isJson ? `${JSON.stringify(value, null, 2)}\n` : text());
}

/** `NAME   VALUE`, a line each; what is undefined is left out. */
export function describe(rows: Record<string, string | undefined>): string {
  const shown = Object.entries(rows).filter((row): row is [string, string] => row[1] !== undefined);
  const [first, ...rest] = shown;
  return first ? table(first, rest) : '';
}

const UNITS: [name: string, ms: number][] = [
  ['d', 86_400_000],
  ['h', 3_600_000],
  ['m', 60_000],
  ['s', 1_000],
];

/** `3d`, `4h`: the largest unit that fits twice, as kubectl has it. */
export function age(timestamp: string | undefined, nowMs: number = systemClock.nowMs()): string {
  if (!timestamp) return '<unknown>';
  const passedMs = Math.max(0, nowMs - Date.parse(timestamp));
  const [unit, ms] = UNITS.find(([, size]) => passedMs >= 2 * size) ?? ['s', 1_000];
  return `${Math.floor(passedMs / ms)}${unit}`;
}
