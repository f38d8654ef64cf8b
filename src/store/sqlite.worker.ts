import { parentPort, workerData } from 'node:worker_threads';
import { assert } from '../base/assert.ts';
import { StoreDatabase } from './sqlite.database.ts';
import type { CommitRows, LoadedMeta, RowPartition } from './sqlite.database.ts';
import type { RowBlock } from './sqlite.rows.ts';

/**
 * The thread that owns the SQLite file. A slow disk blocks this thread and not the server's. It
 * answers one request at a time, in order.
 */
export type WorkerRequest =
  | { op: 'open' }
  | { op: 'load'; after: number; count: number }
  | { op: 'upgrade' }
  | { op: 'partition'; partitions: RowPartition[] }
  | { op: 'commit'; rows: CommitRows }
  | { op: 'close'; revision: number };

export interface WorkerReply {
  meta?: LoadedMeta;
  rows?: RowBlock;
  /** SQLite's own words. */
  failure?: { message: string; resultCode: number | undefined };
  /** Something that nobody waits for went wrong; it is tried again later. */
  warning?: string;
}

const port = parentPort;
assert(port, 'sqlite.worker runs as a worker thread');
const { path } = workerData as { path: string };
let database: StoreDatabase | undefined;

port.on('message', (request: WorkerRequest) => {
  const transfer: ArrayBuffer[] = [];
  let reply: WorkerReply;
  try {
    reply = answer(request);
    if (reply.rows) transfer.push(reply.rows.values.buffer);
  } catch (error) {
    reply = { failure: failureOf(error) };
  }
  port.postMessage(reply, transfer);
  if (request.op === 'commit') maintain();
});

function answer(request: WorkerRequest): WorkerReply {
  if (request.op === 'open') {
    database = new StoreDatabase(path);
    return { meta: database.meta() };
  }
  assert(database, 'the database is open');
  if (request.op === 'load') return { rows: database.load(request.after, request.count) };
  if (request.op === 'upgrade') database.upgrade();
  if (request.op === 'partition') database.setPartitions(request.partitions);
  if (request.op === 'commit') database.commit(request.rows);
  if (request.op === 'close') database.close(request.revision);
  return {};
}

function maintain(): void {
  try {
    database?.maintain();
  } catch (error) {
    port?.postMessage({ warning: failureOf(error).message } satisfies WorkerReply);
  }
}

function failureOf(error: unknown): { message: string; resultCode: number | undefined } {
  const { message, errcode } = error as { message: string; errcode?: number };
  return { message, resultCode: errcode };
}
