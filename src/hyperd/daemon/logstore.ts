import { constants } from 'node:fs';
import { mkdir, open, readFile, readdir, rm } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { EventEmitter, once } from 'node:events';
import { LOG_RECORD_HEADER_BYTES } from '../../api/hyperd.ts';
import { encodeLogRecord, readLogHeader, splitIntoRecords } from '../../api/hyperlog.ts';
import { assert } from '../../base/assert.ts';

/**
 * The log of one container: the bytes of its two output streams, cut into records (see
 * `api/hyperlog.ts`), in files that rotate. It is also the daemon's memory of how far each stream
 * has been taken from the guest: after a crash the offsets are read from the files, what was cut
 * off at the end is dropped, and the guest sends it again. So no byte is lost or doubled.
 *
 * A file starts with a preamble of FILE_PREAMBLE_BYTES: magic, then the offsets of stdout and
 * stderr at which it begins. Files are numbered; the highest number is the one being written.
 */
export interface ContainerLog {
  /** How many bytes of the stream are kept or have been. */
  offset(stream: 1 | 2): number;
  /**
   * Appends what the guest sent. Bytes before the stream's offset are known already and skipped.
   * Resolves when they survive the death of this process.
   */
  append(stream: 1 | 2, offset: number, bytes: Uint8Array, timeMs: number): Promise<void>;
  read(options: LogReadOptions): AsyncIterable<Uint8Array>;
  /** No more will be written: readers that follow come to their end. */
  finish(): void;
  close(): Promise<void>;
}

export interface LogReadOptions {
  follow: boolean;
  tailLines: number | undefined;
  sinceMs: number;
  streams: ReadonlySet<1 | 2>;
  signal: AbortSignal;
}

export interface LogLimits {
  /** When the current file is larger, a new one is begun: kubelet's containerLogMaxSize. */
  fileBytes: number;
  fileCount: number;
}

const LOG_LIMITS: LogLimits = { fileBytes: 10 << 20, fileCount: 5 };

const MAGIC = Buffer.from('HYLOG01\n', 'latin1');
const FILE_PREAMBLE_BYTES = MAGIC.length + 16;
const READ_CHUNK_BYTES = 256 * 1024;

interface LogFile {
  number: number;
  handle: FileHandle;
  size: number;
}

export async function openContainerLog(
  directory: string,
  limits: LogLimits = LOG_LIMITS,
): Promise<ContainerLog> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const offsets = { 1: 0, 2: 0 };
  const changed = new EventEmitter().setMaxListeners(0);
  let finished = false;
  let current = await openCurrent(directory, offsets);
  let tail: Promise<void> = Promise.resolve();

  const rotate = async () => {
    const full = current;
    current = await createFile(directory, full.number + 1, offsets);
    await full.handle.close();
    await rm(fileName(directory, current.number - limits.fileCount), { force: true });
  };

  const appendNow = async (stream: 1 | 2, offset: number, bytes: Uint8Array, timeMs: number) => {
    const known = offsets[stream] - offset;
    assert(known >= 0, `Log append at ${offset} leaves a gap after ${offsets[stream]}`);
    const fresh = bytes.subarray(known);
    if (fresh.length === 0) return;
    const timeNs = BigInt(Math.round(timeMs * 1000)) * 1000n;
    const block = Buffer.concat(splitIntoRecords(stream, fresh, timeNs).map(encodeLogRecord));
    if (current.size > limits.fileBytes) await rotate();
    try {
      await writeFully(current.handle, block);
    } catch (error) {
      // A disk that is full takes a part: the rest of a record must not be followed by another.
      await current.handle.truncate(current.size);
      throw error;
    }
    current.size += block.length;
    offsets[stream] += fresh.length;
    changed.emit('change');
  };

  async function* read(options: LogReadOptions): AsyncGenerator<Uint8Array> {
    await tail;
    let position = await startPosition(directory, options);
    while (!options.signal.aborted) {
      const oldest = current.number - limits.fileCount + 1;
      if (position.number < oldest) position = { number: oldest, offset: FILE_PREAMBLE_BYTES };
      // Beyond that a write is under way, which may yet be taken back.
      const end = position.number === current.number ? current.size : Number.MAX_SAFE_INTEGER;
      const chunk = await readRecords(fileName(directory, position.number), position.offset, end);
      if (chunk.length > 0) {
        position.offset += chunk.length;
        const wanted = selectRecords(chunk, options);
        if (wanted.length > 0) yield wanted;
      } else if (position.number < current.number) {
        position = { number: position.number + 1, offset: FILE_PREAMBLE_BYTES };
      } else if (position.offset >= current.size) {
        if (finished || !options.follow) return;
        await once(changed, 'change', { signal: options.signal }).catch(() => {});
      }
    }
  }

  return {
    offset: (stream) => offsets[stream],
    append(stream, offset, bytes, timeMs) {
      const result = tail.then(() => appendNow(stream, offset, bytes, timeMs));
      tail = result.catch(() => {});
      return result;
    },
    read,
    finish() {
      finished = true;
      changed.emit('change');
    },
    async close() {
      await tail;
      finished = true;
      changed.emit('change');
      await current.handle.close();
    },
  };
}

async function writeFully(handle: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.length;) {
    const { bytesWritten } = await handle.write(bytes, done, bytes.length - done);
    done += bytesWritten;
  }
}

function fileName(directory: string, number: number): string {
  return join(directory, `${number}.log`);
}

async function fileNumbers(directory: string): Promise<number[]> {
  const names = await readdir(directory);
  const numbers = names.filter((name) => /^\d+\.log$/.test(name)).map((name) => parseInt(name, 10));
  return numbers.sort((a, b) => a - b);
}

async function openCurrent(directory: string, offsets: Record<1 | 2, number>): Promise<LogFile> {
  const numbers = await fileNumbers(directory);
  for (let number = numbers.pop(); number !== undefined; number = numbers.pop()) {
    const path = fileName(directory, number);
    const content = await readFile(path);
    if (content.length < FILE_PREAMBLE_BYTES || !content.subarray(0, MAGIC.length).equals(MAGIC)) {
      // Died between creating the file and its preamble: the one before it tells the offsets.
      await rm(path);
      continue;
    }
    const size = scanOffsets(content, offsets);
    const handle = await open(path, 'r+');
    await handle.truncate(size);
    await handle.close();
    return { number, handle: await open(path, 'a'), size };
  }
  return createFile(directory, 0, offsets);
}

/** Sets the offsets to those at the end of the file; returns the length that is whole. */
function scanOffsets(content: Buffer, offsets: Record<1 | 2, number>): number {
  offsets[1] = Number(content.readBigUInt64BE(MAGIC.length));
  offsets[2] = Number(content.readBigUInt64BE(MAGIC.length + 8));
  let position = FILE_PREAMBLE_BYTES;
  for (;;) {
    const header = readLogHeader(content, position);
    if (!header) return position;
    const end = position + LOG_RECORD_HEADER_BYTES + header.length;
    if (end > content.length) return position;
    offsets[header.stream] += header.length;
    position = end;
  }
}

async function createFile(
  directory: string,
  number: number,
  offsets: Record<1 | 2, number>,
): Promise<LogFile> {
  const preamble = Buffer.alloc(FILE_PREAMBLE_BYTES);
  MAGIC.copy(preamble);
  preamble.writeBigUInt64BE(BigInt(offsets[1]), MAGIC.length);
  preamble.writeBigUInt64BE(BigInt(offsets[2]), MAGIC.length + 8);
  // Over what an attempt that failed may have left.
  const { O_APPEND, O_CREAT, O_TRUNC, O_WRONLY } = constants;
  const flags = O_APPEND | O_CREAT | O_TRUNC | O_WRONLY;
  const handle = await open(fileName(directory, number), flags, 0o600);
  try {
    await writeFully(handle, preamble);
  } catch (error) {
    await handle.close();
    throw error;
  }
  return { number, handle, size: FILE_PREAMBLE_BYTES };
}

/** Whole records from `offset` on, about READ_CHUNK_BYTES of them; empty at the end. */
async function readRecords(path: string, offset: number, fileEnd: number): Promise<Buffer> {
  const handle = await open(path, 'r').catch(ignoreMissing);
  if (!handle) return Buffer.alloc(0);
  try {
    const buffer = Buffer.allocUnsafe(Math.min(READ_CHUNK_BYTES, Math.max(0, fileEnd - offset)));
    const { bytesRead } = await handle.read(buffer, 0, buffer.length, offset);
    let end = 0;
    for (;;) {
      const header = readLogHeader(buffer.subarray(0, bytesRead), end);
      if (!header || end + LOG_RECORD_HEADER_BYTES + header.length > bytesRead) break;
      end += LOG_RECORD_HEADER_BYTES + header.length;
    }
    return buffer.subarray(0, end);
  } finally {
    await handle.close();
  }
}

function selectRecords(chunk: Buffer, options: LogReadOptions): Buffer {
  if (options.sinceMs === 0 && options.streams.size === 2) return chunk;
  const sinceNs = BigInt(options.sinceMs) * 1_000_000n;
  const parts: Buffer[] = [];
  for (let position = 0; position < chunk.length;) {
    const header = readLogHeader(chunk, position);
    if (!header) break;
    const end = position + LOG_RECORD_HEADER_BYTES + header.length;
    if (header.timeNs >= sinceNs && options.streams.has(header.stream)) {
      parts.push(chunk.subarray(position, end));
    }
    position = end;
  }
  return Buffer.concat(parts);
}

/** Where reading starts: at the oldest kept record, or where the last `tailLines` lines begin. */
async function startPosition(
  directory: string,
  options: LogReadOptions,
): Promise<{ number: number; offset: number }> {
  const numbers = await fileNumbers(directory);
  const oldest = { number: numbers[0] ?? 0, offset: FILE_PREAMBLE_BYTES };
  if (options.tailLines === undefined) return oldest;
  let missing = options.tailLines;
  for (const number of numbers.reverse()) {
    const content = await readFile(fileName(directory, number)).catch(() => Buffer.alloc(0));
    if (missing === 0) return { number, offset: content.length };
    const starts = lineStarts(content, options);
    const offset = starts.at(-missing);
    if (offset !== undefined) return { number, offset };
    missing -= starts.length;
  }
  return oldest;
}

/** Offsets of the records with which the selected lines begin. */
function lineStarts(content: Buffer, options: LogReadOptions): number[] {
  const sinceNs = BigInt(options.sinceMs) * 1_000_000n;
  const starts: number[] = [];
  const within = { 1: false, 2: false };
  for (let position = FILE_PREAMBLE_BYTES; ;) {
    const header = readLogHeader(content, position);
    if (!header) return starts;
    const selected = options.streams.has(header.stream) && header.timeNs >= sinceNs;
    if (selected && !within[header.stream]) starts.push(position);
    within[header.stream] = header.partial;
    position += LOG_RECORD_HEADER_BYTES + header.length;
  }
}

function ignoreMissing(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT') throw error;
  return undefined;
}
