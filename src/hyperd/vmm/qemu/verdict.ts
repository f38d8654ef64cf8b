import type { VmExit } from '../hypervisor.ts';

/** What the jail's keeper wrote when the emulator had ended. */
export interface ExitRecord {
  exitCode: number | null;
  signal: number | null;
  /** The keeper killed it because it was told to. */
  requested: boolean;
  oomKills: number;
  cpuMicros: number;
  atMs: number;
}

export interface ExitEvidence {
  record: ExitRecord | undefined;
  /** Reason of the last SHUTDOWN event, where a daemon was there to hear it. */
  shutdownReason: string | undefined;
  /** KVM could not run the guest on, and it was ended for that. */
  isGivenUp: boolean;
  /** End of the guest's console. */
  console: string;
  /** What emulator and jail printed. */
  errors: string;
}

const SIGNAL_NAMES: Record<number, string> = {
  1: 'SIGHUP',
  2: 'SIGINT',
  3: 'SIGQUIT',
  4: 'SIGILL',
  6: 'SIGABRT',
  7: 'SIGBUS',
  8: 'SIGFPE',
  9: 'SIGKILL',
  11: 'SIGSEGV',
  13: 'SIGPIPE',
  14: 'SIGALRM',
  15: 'SIGTERM',
  31: 'SIGSYS',
};

const SIGKILL = 9;

const DETAIL_LENGTH_MAX = 500;

const PANIC = /Kernel panic - not syncing: (.*)/;

/**
 * The truth about how a VM ended. The emulator exits with 0 for a guest that powered off and for
 * one that reset itself, which after a panic it does (`panic=-1`); the monitor's event tells them
 * apart, or for a daemon that was away the panic's line on the console.
 */
export function judgeExit(evidence: ExitEvidence): VmExit {
  const { record } = evidence;
  if (record === undefined) {
    const message = 'The VM and its keeper were killed from outside';
    return { reason: 'killed', exitCode: undefined, signal: 'SIGKILL', message };
  }
  const exitCode = record.exitCode ?? undefined;
  const detail = printable(evidence.errors);
  const signal =
    record.signal === null ? undefined : (SIGNAL_NAMES[record.signal] ?? String(record.signal));
  if (evidence.isGivenUp) {
    const message = `KVM cannot run the guest on${detail && `: ${detail}`}`;
    return { reason: 'failed', exitCode, signal, message };
  }
  if (signal !== undefined) {
    const killed = record.signal === SIGKILL;
    return {
      reason: killed ? 'killed' : 'failed',
      exitCode,
      signal,
      message: signalText(record, signal),
    };
  }
  if (exitCode !== 0) {
    const message = `The emulator failed with exit code ${exitCode}${detail && `: ${detail}`}`;
    return { reason: 'failed', exitCode, signal, message };
  }
  const match = PANIC.exec(evidence.console)?.[1];
  const panic = match === undefined ? undefined : printable(match);
  const reset =
    evidence.shutdownReason === 'guest-reset' || evidence.shutdownReason === 'guest-panic';
  if (reset || (evidence.shutdownReason === undefined && panic !== undefined)) {
    const message = panic === undefined ? 'The guest reset itself' : `Kernel panic: ${panic}`;
    return { reason: 'panicked', exitCode, signal, message };
  }
  if (evidence.shutdownReason?.startsWith('host-')) {
    return { reason: 'killed', exitCode, signal, message: 'The VM was ended by its host' };
  }
  return { reason: 'powered-off', exitCode, signal, message: 'The guest powered off' };
}

/** A tenant's guest has written it, and an operator's terminal will show it. */
function printable(text: string): string {
  return text
    .replace(/[^\x20-\x7e]+/g, ' ')
    .trim()
    .slice(0, DETAIL_LENGTH_MAX);
}

function signalText(record: ExitRecord, signal: string): string {
  if (record.requested) return 'The VM was killed as requested';
  if (record.oomKills > 0)
    return 'The VM was killed because it went over its memory limit on the host';
  if (signal === 'SIGSYS')
    return 'The emulator was ended by SIGSYS: it made a system call that no emulator needs';
  return `The emulator was ended by ${signal}`;
}

/** Strict, though only root can have written it: undefined for anything that is not a record. */
export function parseExitRecord(text: string): ExitRecord | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof value !== 'object' || value === null) return undefined;
  const record = value as ExitRecord;
  const ended = Number.isInteger(record.exitCode) || Number.isInteger(record.signal);
  return ended && typeof record.requested === 'boolean' ? record : undefined;
}
