import { open } from 'node:fs/promises';
import { assert } from '../../base/assert.ts';
import { BoundedQueue } from '../../base/queue.ts';
import { REASON_ANNOTATION, TENANT_ANNOTATION } from './event.ts';
import type { AuditFile, AuditLog } from './log.ts';

/** An event as it is read: what was written, or half of it after a crash. */
export interface AuditEvent {
  verb?: string;
  stageTimestamp?: string;
  user?: { username?: string; uid?: string; groups?: string[]; extra?: object };
  impersonatedUser?: { username?: string };
  sourceIPs?: string[];
  userAgent?: string;
  annotations?: Record<string, string>;
}

export interface AuditQuery {
  /** Only what was recorded for this owner of the log's name. */
  owner?: string;
  sinceMs?: number;
  untilMs?: number;
  /** The newest so many. */
  limit?: number;
  verb?: string;
  user?: string;
  /** What comes later follows, until the signal aborts. */
  follow?: boolean;
  /** For the tenant's own people: of others it shows who they are, not where they sit. */
  tenantView?: boolean;
  signal: AbortSignal;
}

export const AUDIT_READ_LIMIT_MAX = 10_000;
/** Of lines that are held to find the newest; with very long ones they are fewer than asked for. */
const NEWEST_LENGTH_MAX = 16 << 20;
const CHUNK_BYTES = 256 << 10;
const FOLLOW_QUEUE_LENGTH = 1024;
/** A line is recorded before its file is begun, but not long before. */
const LAG_MS = 60_000;

/** Lines of a log as JSON, the newest last, in chunks of whole lines. */
export async function* readAudit(
  log: AuditLog,
  name: string,
  query: AuditQuery,
): AsyncIterable<Uint8Array> {
  const queue = new BoundedQueue<string>(FOLLOW_QUEUE_LENGTH);
  const isOwned = (owner: string) => query.owner === undefined || owner === query.owner;
  const written = (owner: string, text: string) => {
    // A reader that does not keep up ends: it asks again from the last line it has.
    if (isOwned(owner) && !queue.push(text)) queue.close();
  };
  const view = await log.view(name, query.follow ? written : undefined);
  const close = () => queue.close();
  query.signal.addEventListener('abort', close, { once: true });
  if (query.signal.aborted) close();
  try {
    const files = view.files.filter(({ owner }) => isOwned(owner));
    const inTime = files.filter((file, index) => mayHold(file, files[index + 1], query));
    if (query.limit === undefined) yield* forward(inTime, query);
    else yield* encode(await newest(inTime, query, query.limit));
    if (!query.follow) return;
    for await (const text of queue) yield* encode(select(text.split('\n'), query));
  } finally {
    query.signal.removeEventListener('abort', close);
    view.stop();
    queue.close();
  }
}

function mayHold(file: AuditFile, next: AuditFile | undefined, query: AuditQuery): boolean {
  const endMs = next?.startMs ?? Infinity;
  if (query.sinceMs !== undefined && endMs < query.sinceMs) return false;
  return query.untilMs === undefined || file.startMs - LAG_MS <= query.untilMs;
}

async function* forward(files: AuditFile[], query: AuditQuery): AsyncIterable<Uint8Array> {
  for (const file of files) {
    for await (const lines of linesOf(file, query.signal)) yield* encode(select(lines, query));
  }
}

async function newest(files: AuditFile[], query: AuditQuery, limit: number): Promise<string[]> {
  const found: string[][] = [];
  let room: Room = { count: limit, length: NEWEST_LENGTH_MAX };
  for (const file of files.toReversed()) {
    let own: string[] = [];
    for await (const lines of linesOf(file, query.signal)) {
      own = lastThatFit([...own, ...select(lines, query)], room);
    }
    found.unshift(own);
    room = {
      count: room.count - own.length,
      length: room.length - own.reduce((sum, { length }) => sum + length, 0),
    };
    if (room.count <= 0 || room.length <= 0) break;
  }
  return found.flat();
}

interface Room {
  count: number;
  length: number;
}

/** The last lines, and the very last in any case. */
function lastThatFit(lines: string[], { count, length }: Room): string[] {
  let start = lines.length;
  for (let left = length; start > 0 && lines.length - start < count; start -= 1) {
    left -= (lines[start - 1] as string).length;
    if (left < 0 && start < lines.length) break;
  }
  return lines.slice(start);
}

function* encode(lines: string[]): Iterable<Uint8Array> {
  if (lines.length > 0) yield Buffer.from(`${lines.join('\n')}\n`, 'utf8');
}

/** Some lines at a time. A file that has been removed meanwhile has none. */
async function* linesOf(file: AuditFile, signal: AbortSignal): AsyncIterable<string[]> {
  const handle = await open(file.path, 'r').catch((error: NodeJS.ErrnoException) => {
    assert(error.code === 'ENOENT', `Cannot read the audit log: ${error.message}`);
    return undefined;
  });
  if (!handle) return;
  try {
    let rest = Buffer.alloc(0);
    for (let position = 0; position < file.size && !signal.aborted;) {
      const length = Math.min(CHUNK_BYTES, file.size - position);
      const { bytesRead, buffer } = await handle.read(Buffer.alloc(length), 0, length, position);
      if (bytesRead === 0) break;
      position += bytesRead;
      const bytes = Buffer.concat([rest, buffer.subarray(0, bytesRead)]);
      const end = bytes.lastIndexOf(10) + 1;
      rest = bytes.subarray(end);
      yield bytes.toString('utf8', 0, end).split('\n');
    }
  } finally {
    await handle.close();
  }
}

/** Those lines that are asked for. Half a line, which a crash may leave, is none. */
function select(lines: string[], query: AuditQuery): string[] {
  const found: string[] = [];
  for (const line of lines) {
    const event = line === '' ? undefined : parse(line);
    if (!event || !matches(event, query)) continue;
    found.push(query.tenantView ? forTenant(event, line) : line);
  }
  return found;
}

function parse(line: string): AuditEvent | undefined {
  try {
    return JSON.parse(line) as AuditEvent;
  } catch {
    return undefined;
  }
}

function matches(event: AuditEvent, query: AuditQuery): boolean {
  const { verb, user, sinceMs, untilMs } = query;
  if (verb !== undefined && event.verb !== verb) return false;
  const names = [event.user?.username, event.impersonatedUser?.username];
  if (user !== undefined && !names.includes(user)) return false;
  if (sinceMs === undefined && untilMs === undefined) return true;
  const timeMs = Date.parse(event.stageTimestamp ?? '');
  return timeMs >= (sinceMs ?? -Infinity) && timeMs <= (untilMs ?? Infinity);
}

function forTenant(event: AuditEvent, line: string): string {
  if (event.annotations?.[TENANT_ANNOTATION] !== undefined) return line;
  const { sourceIPs: _ips, userAgent: _agent, user, annotations, ...rest } = event;
  const { [REASON_ANNOTATION]: _reason, ...told } = annotations ?? {};
  return JSON.stringify({ ...rest, user: { username: user?.username }, annotations: told });
}
