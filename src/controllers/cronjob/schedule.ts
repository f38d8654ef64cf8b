import { parseSchedule } from '../../api/cron.ts';
import type { CronJob } from '../../api/types.generated.ts';

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
/** How far back the last missed time is looked for: near ones first, since schedules are dense. */
const WINDOWS_MS = [HOUR_MS, DAY_MS, 32 * DAY_MS, 366 * DAY_MS, 5 * 366 * DAY_MS];

export interface DueTimes {
  /** The latest time that has come and was not served, if any. */
  dueMs: number | undefined;
  nextMs: number | undefined;
}

/** @throws SyntaxError for a schedule, RangeError for a time zone that is not known */
export function dueTimes({ spec, metadata, status }: CronJob, nowMs: number): DueTimes {
  const schedule = parseSchedule(spec?.schedule ?? '', spec?.timeZone);
  const servedMs = Date.parse(status?.lastScheduleTime ?? metadata.creationTimestamp ?? '');
  const deadline = spec?.startingDeadlineSeconds;
  const tooLateMs = deadline === undefined ? -Infinity : nowMs - deadline * 1000;
  const sinceMs = Math.max(servedMs, tooLateMs);
  const nextMs = schedule.nextMs(nowMs);
  for (const windowMs of WINDOWS_MS) {
    const fromMs = Math.max(sinceMs, nowMs - windowMs);
    let dueMs: number | undefined;
    let ms = schedule.nextMs(fromMs);
    while (ms !== undefined && ms <= nowMs) {
      dueMs = ms;
      ms = schedule.nextMs(ms);
    }
    if (dueMs !== undefined || fromMs === sinceMs) return { dueMs, nextMs };
  }
  return { dueMs: undefined, nextMs };
}
