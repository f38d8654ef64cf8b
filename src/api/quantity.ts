/**
 * Exact arithmetic on Kubernetes quantities (`250m`, `1.5Gi`, `3e6`). A value is an integer number
 * of billionths, the finest that Kubernetes keeps; finer amounts are rounded away from zero.
 */
export type QuantityFormat = 'decimal' | 'binary' | 'exponent';

export interface Quantity {
  nanos: bigint;
  /** How it was written, and so how it is printed. */
  format: QuantityFormat;
}

/** The words of Kubernetes for anything that is no quantity. */
export const QUANTITY_SYNTAX_ERROR =
  "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
const SUFFIX_ERROR = "unable to parse quantity's suffix";

/** Longer texts are refused: the work grows with the square of the digits. */
const QUANTITY_LENGTH_MAX = 64;
const EXPONENT_MAX = 40;
const NANO = 1_000_000_000n;
/** Kubernetes cuts larger magnitudes to the largest 64-bit integer. */
const VALUE_MAX = (2n ** 63n - 1n) * NANO;

const GRAMMAR = /^([+-]?)(\d*)(?:\.(\d*))?(Ki|Mi|Gi|Ti|Pi|Ei|[numkMGTPE]?|[eE][+-]?\d+)$/;
const DECIMAL_EXPONENTS: Record<string, number> = {
  n: -9,
  u: -6,
  m: -3,
  '': 0,
  k: 3,
  M: 6,
  G: 9,
  T: 12,
  P: 15,
  E: 18,
};
const DECIMAL_SUFFIXES = ['n', 'u', 'm', '', 'k', 'M', 'G', 'T', 'P', 'E'];
const BINARY_SUFFIXES = ['', 'Ki', 'Mi', 'Gi', 'Ti', 'Pi', 'Ei'];
/** Short texts that are canonical as they stand. */
const CANONICAL = /^(?:0|[1-9]\d{0,2}(?:m|k|M|G|Ki|Mi|Gi|Ti)?)$/;

/** Reads a quantity, or returns the message of the error it is. */
export function tryParseQuantity(text: string): Quantity | string {
  const trimmed = text.trim();
  if (trimmed.length > QUANTITY_LENGTH_MAX) return QUANTITY_SYNTAX_ERROR;
  const match = GRAMMAR.exec(trimmed);
  if (!match) return /^[+-]?[0-9.]+[a-zA-Z]/.test(trimmed) ? SUFFIX_ERROR : QUANTITY_SYNTAX_ERROR;
  const [, sign, whole = '', fraction = '', suffix = ''] = match;
  if (whole === '' && fraction === '') return QUANTITY_SYNTAX_ERROR;
  const digits = BigInt(whole + fraction);
  const binary = suffix.endsWith('i') ? BINARY_SUFFIXES.indexOf(suffix) : -1;
  let exponent = DECIMAL_EXPONENTS[suffix] ?? 0;
  let format: QuantityFormat = binary >= 0 ? 'binary' : 'decimal';
  if (suffix.length > 1 && binary < 0) {
    exponent = Number(suffix.slice(1));
    format = 'exponent';
    if (Math.abs(exponent) > EXPONENT_MAX) return SUFFIX_ERROR;
  }
  const scale = exponent + 9 - fraction.length;
  const base = binary >= 0 ? digits << BigInt(10 * binary) : digits;
  const magnitude =
    scale >= 0 ? base * 10n ** BigInt(scale) : divideRoundingUp(base, 10n ** BigInt(-scale));
  const bounded = magnitude > VALUE_MAX ? VALUE_MAX : magnitude;
  return { nanos: sign === '-' ? -bounded : bounded, format };
}

/** Reads a quantity. Throws `RangeError` with Kubernetes' message. */
export function parseQuantity(text: string | number): Quantity {
  const parsed = tryParseQuantity(String(text));
  if (typeof parsed === 'string') throw new RangeError(parsed);
  return parsed;
}

/** The canonical text: no fraction, no precision lost, the largest suffix that allows it. */
export function formatQuantity(quantity: Quantity): string {
  const { nanos } = quantity;
  if (nanos === 0n) return '0';
  const small = nanos > -1024n * NANO && nanos < 1024n * NANO;
  if (quantity.format === 'binary' && !small) {
    const [value, power] = stripFactor(roundToUnit(nanos), 1024n, BINARY_SUFFIXES.length - 1);
    return `${value}${BINARY_SUFFIXES[power]}`;
  }
  const [value, power] = stripFactor(nanos, 1000n, DECIMAL_SUFFIXES.length - 1);
  if (quantity.format !== 'exponent') return `${value}${DECIMAL_SUFFIXES[power]}`;
  const exponent = power * 3 - 9;
  return exponent === 0 ? `${value}` : `${value}e${exponent}`;
}

/** The canonical text of a written quantity, or the error message with `ok` false. */
export function canonicalQuantity(text: string): { ok: boolean; text: string } {
  if (CANONICAL.test(text)) return { ok: true, text };
  const parsed = tryParseQuantity(text);
  if (typeof parsed === 'string') return { ok: false, text: parsed };
  return { ok: true, text: formatQuantity(parsed) };
}

export function compareQuantities(a: string | number, b: string | number): -1 | 0 | 1 {
  const difference = parseQuantity(a).nanos - parseQuantity(b).nanos;
  return difference < 0n ? -1 : difference > 0n ? 1 : 0;
}

/** The sum in the format of `a`, or of `b` where `a` is zero. */
export function addQuantities(a: string | number, b: string | number): string {
  const [left, right] = [parseQuantity(a), parseQuantity(b)];
  return formatQuantity({
    nanos: left.nanos + right.nanos,
    format: left.nanos === 0n ? right.format : left.format,
  });
}

/** The difference in the format of `a`. */
export function subtractQuantities(a: string | number, b: string | number): string {
  const { nanos, format } = parseQuantity(a);
  return formatQuantity({ nanos: nanos - parseQuantity(b).nanos, format });
}

/** Whole units, rounded up: bytes of memory, number of pods. */
export function quantityValue(text: string | number): number {
  return Number(ceilDivide(parseQuantity(text).nanos, NANO));
}

/** Thousandths, rounded up: CPU. */
export function quantityMillis(text: string | number): number {
  return Number(ceilDivide(parseQuantity(text).nanos, 1_000_000n));
}

function divideRoundingUp(magnitude: bigint, divisor: bigint): bigint {
  return (magnitude + divisor - 1n) / divisor;
}

function ceilDivide(value: bigint, divisor: bigint): bigint {
  return value < 0n ? value / divisor : (value + divisor - 1n) / divisor;
}

function roundToUnit(nanos: bigint): bigint {
  return nanos < 0n ? -divideRoundingUp(-nanos, NANO) : divideRoundingUp(nanos, NANO);
}

function stripFactor(value: bigint, factor: bigint, powerMax: number): [bigint, number] {
  let rest = value;
  let power = 0;
  while (power < powerMax && rest % factor === 0n) {
    rest /= factor;
    power += 1;
  }
  return [rest, power];
}
