import { LOG_RECORD_HEADER_BYTES } from './hyperd.ts';

/** One record of a container's log; the format is described in `hyperd.ts`. */
export interface LogRecord {
  stream: 1 | 2;
  /** Whether the line goes on in the stream's next record. */
  partial: boolean;
  timeNs: bigint;
  bytes: Uint8Array;
}

const FLAG_PARTIAL = 1;

/** A line longer than this is split over several records, so that a reader's memory is bounded. */
const LOG_RECORD_BYTES_MAX = 16 * 1024;

export function encodeLogRecord(record: LogRecord): Buffer {
  const out = Buffer.allocUnsafe(LOG_RECORD_HEADER_BYTES + record.bytes.length);
  out.writeUInt8(record.stream, 0);
  out.writeUInt8(record.partial ? FLAG_PARTIAL : 0, 1);
  out.writeUInt16BE(0, 2);
  out.writeUInt32BE(record.bytes.length, 4);
  out.writeBigUInt64BE(record.timeNs, 8);
  out.set(record.bytes, LOG_RECORD_HEADER_BYTES);
  return out;
}

/** Cuts the output of a process into records: one for each line, and for what is left over. */
export function splitIntoRecords(stream: 1 | 2, bytes: Uint8Array, timeNs: bigint): LogRecord[] {
  const records: LogRecord[] = [];
  for (let start = 0; start < bytes.length;) {
    const newline = bytes.indexOf(0x0a, start);
    const lineEnd = newline < 0 ? bytes.length : newline + 1;
    const end = Math.min(lineEnd, start + LOG_RECORD_BYTES_MAX);
    const partial = newline < 0 || end < lineEnd;
    records.push({ stream, partial, timeNs, bytes: bytes.subarray(start, end) });
    start = end;
  }
  return records;
}

/** The header at `offset`, or undefined where it is cut off or not one. */
export function readLogHeader(
  buffer: Buffer,
  offset: number,
): { stream: 1 | 2; partial: boolean; length: number; timeNs: bigint } | undefined {
  if (offset + LOG_RECORD_HEADER_BYTES > buffer.length) return undefined;
  const stream = buffer.readUInt8(offset);
  const flags = buffer.readUInt8(offset + 1);
  const length = buffer.readUInt32BE(offset + 4);
  const known = (stream === 1 || stream === 2) && flags <= FLAG_PARTIAL;
  if (!known || length > LOG_RECORD_BYTES_MAX) return undefined;
  return {
    stream,
    partial: flags === FLAG_PARTIAL,
    length,
    timeNs: buffer.readBigUInt64BE(offset + 8),
  };
}

/** Reads a log stream record by record, however its bytes are cut into chunks. */
export async function* decodeLogRecords(
  chunks: AsyncIterable<Uint8Array>,
): AsyncGenerator<LogRecord> {
  let rest: Buffer = Buffer.alloc(0);
  for await (const chunk of chunks) {
    rest = rest.length === 0 ? Buffer.from(chunk) : Buffer.concat([rest, chunk]);
    let offset = 0;
    for (;;) {
      if (offset + LOG_RECORD_HEADER_BYTES > rest.length) break;
      const header = readLogHeader(rest, offset);
      if (!header) throw new Error('Cannot read the log stream: malformed record header');
      const end = offset + LOG_RECORD_HEADER_BYTES + header.length;
      if (end > rest.length) break;
      const bytes = rest.subarray(offset + LOG_RECORD_HEADER_BYTES, end);
      yield { stream: header.stream, partial: header.partial, timeNs: header.timeNs, bytes };
      offset = end;
    }
    rest = rest.subarray(offset);
  }
  if (rest.length > 0) throw new Error('Cannot read the log stream: it ends within a record');
}
