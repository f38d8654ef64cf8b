import type { ProcessExit } from '../../api/hyperd.ts';
import { decodeLogRecords } from '../../api/hyperlog.ts';
import type { GuestOutput } from '../agent/agent.ts';
import { openContainerLog } from './logstore.ts';
import type { ContainerLog } from './logstore.ts';
import type { ContainerRecord } from './record.ts';

/**
 * One attempt at running a container: its record, its log, and who looks on. The state goes
 * creating → running → exited, or creating → exited when it could not be started; it never goes
 * back.
 */
export interface Container {
  readonly record: ContainerRecord;
  readonly log: ContainerLog;
  /** Takes output of the guest; resolves when it is safe and everyone attached has taken it. */
  output(output: GuestOutput): Promise<void>;
  /** Live output from now on, until `detach`. The writer waits for the sink: flow control. */
  attach(sink: OutputSink): { detach(): void };
  /** Tells that the process runs, which it may not do for long. */
  markStarted(): void;
  /** Resolves when the process has been started, or is known never to be. */
  readonly started: Promise<void>;
  /**
   * Settles the state; of several exits the first one counts. With a message in it that happens
   * before the call returns, without one when the log has been looked at.
   */
  exit(exit: ProcessExit): Promise<void>;
  /** Resolves when no exit is on its way. */
  settled(): Promise<void>;
  readonly exited: Promise<ProcessExit>;
  close(): Promise<void>;
}

export type OutputSink = (stream: 1 | 2, bytes: Uint8Array) => Promise<void>;

/** As much of a log as Kubernetes takes for a termination message: 80 lines, 2048 bytes. */
const MESSAGE_LOG_LINES = 80;
const MESSAGE_LOG_BYTES = 2048;

/** Opens the log beside the record; a container that ended before stays ended. */
export async function openContainer(
  record: ContainerRecord,
  logDirectory: string,
  nowMs: () => number,
): Promise<Container> {
  const log = await openContainerLog(logDirectory);
  const sinks = new Set<OutputSink>();
  let settle: (exit: ProcessExit) => void = () => {};
  const exited = new Promise<ProcessExit>((resolve) => (settle = resolve));
  const { promise: started, resolve: markStarted } = Promise.withResolvers<void>();
  if (record.state.startedAtMs > 0) markStarted();
  let settling: Promise<void> | undefined;
  const finish = (exit: ProcessExit) => {
    log.finish();
    markStarted();
    settle(exit);
  };
  const applyExit = async (exit: ProcessExit) => {
    const wantsLog = record.spec.terminationMessageFromLog && exit.exitCode !== 0;
    const message = exit.message || (wantsLog ? await logTail(log).catch(() => '') : '');
    record.state.phase = 'exited';
    record.state.exit = { ...exit, message };
    finish(record.state.exit);
  };
  if (record.state.exit) {
    settling = Promise.resolve();
    finish(record.state.exit);
  }
  return {
    record,
    log,
    exited,
    started,
    markStarted,
    async output({ stream, offset, bytes, timeMs }) {
      const fresh = bytes.subarray(Math.max(0, log.offset(stream) - offset));
      if (record.state.firstByteAtMs === 0 && fresh.length > 0)
        record.state.firstByteAtMs = nowMs();
      await log.append(stream, offset, bytes, timeMs);
      if (fresh.length === 0) return;
      const taken = [...sinks].map((sink) => sink(stream, fresh).catch(() => sinks.delete(sink)));
      await Promise.all(taken);
    },
    attach(sink) {
      sinks.add(sink);
      return { detach: () => void sinks.delete(sink) };
    },
    exit(exit) {
      settling ??= applyExit(exit);
      return settling;
    },
    settled: () => settling ?? Promise.resolve(),
    close: () => log.close(),
  };
}

async function logTail(log: ContainerLog): Promise<string> {
  const signal = new AbortController().signal;
  const streams = new Set<1 | 2>([1, 2]);
  const options = { follow: false, tailLines: MESSAGE_LOG_LINES, sinceMs: 0, streams, signal };
  const parts: Uint8Array[] = [];
  for await (const record of decodeLogRecords(log.read(options))) parts.push(record.bytes);
  return Buffer.concat(parts).subarray(-MESSAGE_LOG_BYTES).toString('utf8');
}
