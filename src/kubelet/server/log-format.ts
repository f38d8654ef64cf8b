import type { LogRecord } from '../../api/hyperlog.ts';

/** Turns log records into the text that `kubectl logs` prints. */
export interface LogFormat {
  timestamps: boolean;
  /** Exactly so many bytes at most; undefined is no limit. */
  limitBytes: number | undefined;
  /** Only what was written at or after this time. */
  sinceNs: bigint;
  /** Only one of the outputs; undefined is both. */
  stream: 1 | 2 | undefined;
}

const NS_PER_MS = 1_000_000n;
const NS_PER_SECOND = 1_000_000_000n;

/** RFC 3339 with nine digits, as Kubernetes' container logs carry it. */
export function timestamp(timeNs: bigint): string {
  const seconds = new Date(Number(timeNs / NS_PER_MS)).toISOString().slice(0, 19);
  return `${seconds}.${String(timeNs % NS_PER_SECOND).padStart(9, '0')}Z`;
}

/**
 * A line that was written in parts is one line with one timestamp, also when the other output
 * wrote in between. Parts are passed on as they come: a prompt has no line feed.
 */
export async function* formatLog(
  records: AsyncIterable<LogRecord>,
  format: LogFormat,
): AsyncGenerator<Buffer> {
  let left = format.limitBytes ?? Number.POSITIVE_INFINITY;
  const isOpen = { 1: false, 2: false };
  for await (const { stream, partial, timeNs, bytes } of records) {
    if (timeNs < format.sinceNs) continue;
    if (format.stream !== undefined && stream !== format.stream) continue;
    const startsLine = !isOpen[stream];
    isOpen[stream] = partial;
    const prefix = format.timestamps && startsLine ? `${timestamp(timeNs)} ` : '';
    const text = Buffer.concat([Buffer.from(prefix), bytes]);
    yield text.length > left ? text.subarray(0, left) : text;
    left -= text.length;
    if (left <= 0) return;
  }
}
