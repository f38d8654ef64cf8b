/** Schedules of CronJobs: five fields as in crontab(5), or a descriptor such as `@daily`. */
export interface Schedule {
  /** The first time after `afterMs`, undefined if there is none for years. */
  nextMs(afterMs: number): number | undefined;
}

interface Field {
  min: number;
  max: number;
  names: string[];
}

interface Times {
  minutes: Set<number>;
  hours: Set<number>;
  days: Set<number>;
  months: Set<number>;
  weekdays: Set<number>;
  /** Both the days of the month and those of the week are restricted: either will do. */
  isEitherDay: boolean;
}

const MONTHS = 'jan feb mar apr may jun jul aug sep oct nov dec'.split(' ');
const WEEKDAYS = 'sun mon tue wed thu fri sat'.split(' ');
const FIELDS: Field[] = [
  { min: 0, max: 59, names: [] },
  { min: 0, max: 23, names: [] },
  { min: 1, max: 31, names: [] },
  { min: 1, max: 12, names: ['', ...MONTHS] },
  { min: 0, max: 6, names: WEEKDAYS },
];
const DESCRIPTORS: Record<string, string | undefined> = {
  '@yearly': '0 0 1 1 *',
  '@annually': '0 0 1 1 *',
  '@monthly': '0 0 1 * *',
  '@weekly': '0 0 * * 0',
  '@daily': '0 0 * * *',
  '@midnight': '0 0 * * *',
  '@hourly': '0 * * * *',
};
const UNIT_MS: Record<string, number | undefined> = {
  ...{ h: 3_600_000, m: 60_000, s: 1000, ms: 1, us: 1e-3, ns: 1e-6 },
};
const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
/** The 29th of February comes after eight years at the latest. */
const SEARCH_MS = 9 * 366 * 24 * HOUR_MS;

/**
 * Reads a schedule.
 *
 * @param timeZone by whose clock the fields are meant, such as `Europe/Berlin`. @default UTC
 * @throws SyntaxError in the words of Kubernetes' validation
 */
export function parseSchedule(text: string, timeZone?: string): Schedule {
  if (text.startsWith('@every ')) return everyOf(text);
  if (text.startsWith('@') && !DESCRIPTORS[text]) {
    throw new SyntaxError(`unrecognized descriptor: ${text}`);
  }
  const parts = (DESCRIPTORS[text] ?? text).trim().split(/\s+/);
  if (parts.length !== FIELDS.length) {
    throw new SyntaxError(`expected exactly 5 fields, found ${parts.length}: [${parts.join(' ')}]`);
  }
  const [minutes, hours, days, months, weekdays] = FIELDS.map((field, index) =>
    valuesOf(parts[index] ?? '', field),
  ) as [Set<number>, Set<number>, Set<number>, Set<number>, Set<number>];
  const isOpen = (part = '') => /^[*?](?:\/1)?$/.test(part);
  const isEitherDay = !isOpen(parts[2]) && !isOpen(parts[4]);
  const times = { minutes, hours, days, months, weekdays, isEitherDay };
  const read = clockOf(timeZone);
  return { nextMs: (afterMs) => search(times, read, afterMs) };
}

function everyOf(text: string): Schedule {
  const duration = text.slice('@every '.length);
  if (!/^(?:\d+(?:\.\d+)?(?:h|ms|m|s|us|ns))+$/.test(duration)) {
    throw new SyntaxError(`failed to parse duration ${text}: time: invalid duration "${duration}"`);
  }
  let stepMs = 0;
  for (const [, count, unit] of duration.matchAll(/(\d+(?:\.\d+)?)(h|ms|m|s|us|ns)/g)) {
    stepMs += Number(count) * (UNIT_MS[unit ?? ''] ?? 0);
  }
  const wholeMs = Math.max(1000, Math.floor(stepMs / 1000) * 1000);
  return { nextMs: (afterMs) => Math.floor(afterMs / 1000) * 1000 + wholeMs };
}

function valuesOf(part: string, field: Field): Set<number> {
  const values = new Set<number>();
  for (const entry of part.split(',')) {
    const { from, to, step } = rangeOf(entry, field);
    for (let value = from; value <= to; value += step) values.add(value);
  }
  return values;
}

function rangeOf(entry: string, field: Field): { from: number; to: number; step: number } {
  const { min, max } = field;
  const match = /^(?:[*?]|(\w+)(?:-(\w+))?)(?:\/(\d+))?$/.exec(entry);
  if (!match) throw new SyntaxError(`failed to parse int from ${entry}: invalid syntax`);
  const [, first, last, stepText] = match;
  const step = stepText === undefined ? 1 : Number(stepText);
  const from = first === undefined ? min : valueOf(first, field);
  // `5/10` goes on to the end, `5` alone does not.
  const single = first === undefined || stepText !== undefined ? max : from;
  const to = last === undefined ? single : valueOf(last, field);
  if (from < min) {
    throw new SyntaxError(`beginning of range (${from}) below minimum (${min}): ${entry}`);
  }
  if (to > max) throw new SyntaxError(`end of range (${to}) above maximum (${max}): ${entry}`);
  if (from > to) {
    throw new SyntaxError(`beginning of range (${from}) beyond end of range (${to}): ${entry}`);
  }
  if (step === 0) throw new SyntaxError(`step of range should be a positive number: ${entry}`);
  return { from, to, step };
}

function valueOf(text: string, { names }: Field): number {
  const named = names.indexOf(text.toLowerCase());
  if (named >= 0) return named;
  if (!/^\d+$/.test(text)) {
    throw new SyntaxError(
      `failed to parse int from ${text}: strconv.Atoi: parsing "${text}": invalid syntax`,
    );
  }
  return Number(text);
}

interface LocalTime {
  minute: number;
  hour: number;
  day: number;
  month: number;
  weekday: number;
}

function clockOf(timeZone: string | undefined): (ms: number) => LocalTime {
  if (timeZone === undefined) {
    return (ms) => {
      const date = new Date(ms);
      return {
        minute: date.getUTCMinutes(),
        hour: date.getUTCHours(),
        day: date.getUTCDate(),
        month: date.getUTCMonth() + 1,
        weekday: date.getUTCDay(),
      };
    };
  }
  const numeric = { minute: 'numeric', hour: 'numeric', day: 'numeric', month: 'numeric' } as const;
  const format = new Intl.DateTimeFormat('en-US', {
    ...numeric,
    weekday: 'short',
    hourCycle: 'h23',
    timeZone,
  });
  return (ms) => {
    const parts = new Map(format.formatToParts(ms).map(({ type, value }) => [type, value]));
    const number = (type: Intl.DateTimeFormatPartTypes) => Number(parts.get(type));
    const weekday = WEEKDAYS.indexOf((parts.get('weekday') ?? '').toLowerCase());
    const day = number('day');
    return { minute: number('minute'), hour: number('hour'), day, month: number('month'), weekday };
  };
}

/** Walks the clock on, in long steps where a whole day or hour does not fit. */
function search(
  times: Times,
  read: (ms: number) => LocalTime,
  afterMs: number,
): number | undefined {
  let ms = (Math.floor(afterMs / MINUTE_MS) + 1) * MINUTE_MS;
  while (ms - afterMs < SEARCH_MS) {
    const local = read(ms);
    if (!fitsDay(times, local)) {
      // An hour less than to midnight: days may be an hour shorter where clocks are changed.
      const hours = Math.max(1, 23 - local.hour);
      ms += hours * HOUR_MS - local.minute * MINUTE_MS;
    } else if (!times.hours.has(local.hour)) ms += HOUR_MS - local.minute * MINUTE_MS;
    else if (!times.minutes.has(local.minute)) ms += MINUTE_MS;
    else return ms;
  }
  return undefined;
}

function fitsDay(times: Times, { day, month, weekday }: LocalTime): boolean {
  if (!times.months.has(month)) return false;
  const [isDay, isWeekday] = [times.days.has(day), times.weekdays.has(weekday)];
  return times.isEitherDay ? isDay || isWeekday : isDay && isWeekday;
}
