import { constants } from 'node:os';
import { badRequest } from '../../api/status.ts';

/** Real-time signals start here on Linux (glibc and musl reserve the first few). */
const SIGRTMIN = 34;
const SIGNAL_MAX = 64;

/** `TERM`, `SIGTERM`, `15` and `RTMIN+3` → their number. @throws StatusError BadRequest */
export function signalNumber(name: string): number {
  const bare = name.toUpperCase().replace(/^SIG/, '');
  const realTime = /^RTMIN(?:\+(\d+))?$/.exec(bare);
  const number = /^\d+$/.test(bare)
    ? Number(bare)
    : realTime
      ? SIGRTMIN + Number(realTime[1] ?? 0)
      : (constants.signals as Record<string, number>)[`SIG${bare}`];
  if (number === undefined || number < 1 || number > SIGNAL_MAX) {
    throw badRequest(`Signal "${name}" is unknown`);
  }
  return number;
}
