/**
 * What a tenant has used, or uses at this moment: the same names with a time in their unit, or
 * without. Whole numbers without limit, so that sums are exact.
 */
export interface Amounts {
  /** Pods that are bound to a node and not finished; milliseconds of them. */
  pods: bigint;
  /** Requested, overhead included: thousandths of a CPU; milliseconds of them. */
  cpu: bigint;
  /** Requested, overhead included: bytes; milliseconds of them. */
  memory: bigint;
  /** Of bound claims: bytes; milliseconds of them. */
  storage: bigint;
  /** Used, as far as nodes tell: in the units of `cpu` and `memory`. */
  cpuUsed: bigint;
  memoryUsed: bigint;
}

const NAMES = [
  'pods',
  'cpu',
  'memory',
  'storage',
  'cpuUsed',
  'memoryUsed',
] as const satisfies (keyof Amounts)[];

export const nothing = (): Amounts => ({
  ...{ pods: 0n, cpu: 0n, memory: 0n, storage: 0n },
  ...{ cpuUsed: 0n, memoryUsed: 0n },
});

export function isNothing(amounts: Amounts): boolean {
  return NAMES.every((name) => amounts[name] === 0n);
}

export function areEqual(a: Amounts, b: Amounts): boolean {
  return NAMES.every((name) => a[name] === b[name]);
}

/** Adds so many times `more` to `sum`. */
export function addTimes(sum: Amounts, more: Amounts, times: bigint): void {
  for (const name of NAMES) sum[name] += more[name] * times;
}

/** As they are stored: one number each. */
export function formatAmounts(amounts: Amounts): string {
  return NAMES.map((name) => amounts[name]).join(' ');
}

export function parseAmounts(text: string): Amounts {
  const numbers = text.split(' ').map(BigInt);
  return Object.fromEntries(NAMES.map((name, i) => [name, numbers[i] ?? 0n])) as unknown as Amounts;
}

/** How they are shown: seconds, of whole CPUs, as exact decimals. */
export const SHOWN = [
  { name: 'pods', field: 'podSeconds', decimals: 3 },
  { name: 'cpu', field: 'cpuSeconds', decimals: 6 },
  { name: 'memory', field: 'memoryByteSeconds', decimals: 3 },
  { name: 'storage', field: 'storageByteSeconds', decimals: 3 },
  { name: 'cpuUsed', field: 'cpuUsedSeconds', decimals: 6 },
  { name: 'memoryUsed', field: 'memoryUsedByteSeconds', decimals: 3 },
] as const satisfies { name: keyof Amounts; field: string; decimals: number }[];

/** @param decimals how many of the value's last digits are behind the point */
export function formatDecimal(value: bigint, decimals: number): string {
  const digits = String(value).padStart(decimals + 1, '0');
  const fraction = digits.slice(-decimals).replace(/0+$/, '');
  return digits.slice(0, -decimals) + (fraction ? `.${fraction}` : '');
}
