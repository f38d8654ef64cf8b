/** Kubernetes' three texts of time: `Time` (seconds), `MicroTime` (microseconds), and ages. */
/** Canonical already, and on a day that every month has. */
const TIME = /^\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|1\d|2[0-8])T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\dZ$/;
const RFC3339 =
  /^(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d)$/;

/** `2026-11-21T03:10:00Z`, whatever zone and fraction came in; undefined for what is no time. */
export function canonicalTime(text: string): string | undefined {
  if (TIME.test(text)) return text;
  const instant = parseRfc3339(text);
  return instant && `${new Date(instant.ms).toISOString().slice(0, 19)}Z`;
}

/** `2026-11-21T03:10:00.123456Z`. */
export function canonicalMicroTime(text: string): string | undefined {
  const instant = parseRfc3339(text);
  if (!instant) return undefined;
  return `${new Date(instant.ms).toISOString().slice(0, 19)}.${instant.fraction.slice(0, 6)}Z`;
}

function parseRfc3339(text: string): { ms: number; fraction: string } | undefined {
  const match = RFC3339.exec(text);
  if (!match) return undefined;
  const [, year, month, day, hour, minute, second, fraction = '', zone = 'Z'] = match;
  const date = new Date(0);
  date.setUTCFullYear(Number(year), Number(month) - 1, Number(day));
  if (date.getUTCDate() !== Number(day) || date.getUTCMonth() !== Number(month) - 1)
    return undefined;
  if (Number(hour) > 23 || Number(minute) > 59 || Number(second) > 59) return undefined;
  date.setUTCHours(Number(hour), Number(minute), Number(second));
  const offset = zone.toUpperCase() === 'Z' ? 0 : zoneMinutes(zone);
  const ms = date.getTime() - offset * 60_000;
  const yearOut = new Date(ms).getUTCFullYear();
  if (Math.abs(offset) > 24 * 60 || yearOut < 0 || yearOut > 9999) return undefined;
  return { ms, fraction: fraction.padEnd(9, '0') };
}

function zoneMinutes(zone: string): number {
  const minutes = Number(zone.slice(1, 3)) * 60 + Number(zone.slice(4, 6));
  return zone.startsWith('-') ? -minutes : minutes;
}

/**
 * The duration of a printed AGE: two units at most, finer for the young (`2m30s`, `5h`, `3d4h`,
 * `2y35d`), in the steps of apimachinery's HumanDuration.
 */
export function humanDuration(durationMs: number): string {
  const seconds = Math.trunc(durationMs / 1000);
  if (seconds < -1) return '<invalid>';
  if (seconds < 0) return '0s';
  const minutes = Math.trunc(seconds / 60);
  if (seconds < 120) return `${seconds}s`;
  if (minutes < 10) return join(minutes, 'm', seconds % 60, 's');
  const hours = Math.trunc(minutes / 60);
  if (minutes < 180) return `${minutes}m`;
  if (hours < 8) return join(hours, 'h', minutes % 60, 'm');
  if (hours < 48) return `${hours}h`;
  const days = Math.trunc(hours / 24);
  if (hours < 192) return join(days, 'd', hours % 24, 'h');
  const years = Math.trunc(days / 365);
  if (days < 730) return `${days}d`;
  if (days < 365 * 8) return join(years, 'y', days % 365, 'd');
  return `${years}y`;
}

function join(major: number, majorUnit: string, minor: number, minorUnit: string): string {
  return minor === 0 ? `${major}${majorUnit}` : `${major}${majorUnit}${minor}${minorUnit}`;
}

/** Go's `time.Duration.String`: `1h2m3.5s`, `250ms`, `0s`. */
export function formatGoDuration(nanos: bigint): string {
  if (nanos === 0n) return '0s';
  const sign = nanos < 0n ? '-' : '';
  const size = nanos < 0n ? -nanos : nanos;
  if (size < 1_000n) return `${sign}${size}ns`;
  if (size < 1_000_000n) return `${sign}${decimal(size, 1_000n)}µs`;
  if (size < 1_000_000_000n) return `${sign}${decimal(size, 1_000_000n)}ms`;
  const minutes = size / 60_000_000_000n;
  const seconds = `${decimal(size % 60_000_000_000n, 1_000_000_000n)}s`;
  if (minutes === 0n) return sign + seconds;
  const hours = minutes / 60n;
  return hours === 0n
    ? `${sign}${minutes}m${seconds}`
    : `${sign}${hours}h${minutes % 60n}m${seconds}`;
}

function decimal(value: bigint, unit: bigint): string {
  const rest = value % unit;
  const fraction = rest
    .toString()
    .padStart(unit.toString().length - 1, '0')
    .replace(/0+$/, '');
  return fraction === '' ? `${value / unit}` : `${value / unit}.${fraction}`;
}
