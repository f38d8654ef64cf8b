import { STREAM_CHANNEL } from '../api/hyperd.ts';
import type { ProcessExit, ProcessSpec } from '../api/hyperd.ts';
import { readFrames } from '../api/hyperstream.ts';
import type { Clock } from '../base/clock.ts';
import type { HyperdClient } from '../client/hyperd.ts';

/** What is kept of a command's output: probes and hooks report the beginning of it. */
const OUTPUT_BYTES_MAX = 10 * 1024;
/** How much later than hyperd itself we give up on a command that is too slow. */
const TIMEOUT_MARGIN_MS = 2_000;
const SIGKILL = 9;

export interface CommandResult {
  exitCode: number;
  output: string;
  timedOut: boolean;
}

/** Runs a command in a container to its end. @throws StatusError where it cannot be started */
export async function runCommand(
  hyperd: HyperdClient,
  clock: Clock,
  target: { sandboxId: string; containerId: string },
  process: ProcessSpec,
  timeoutMs: number,
  signal: AbortSignal,
): Promise<CommandResult> {
  const limit = new AbortController();
  const abort = () => limit.abort(signal.reason);
  signal.addEventListener('abort', abort, { once: true });
  const timer = clock.after(timeoutMs + TIMEOUT_MARGIN_MS, () => limit.abort());
  try {
    const request = { process, stdin: false, stdout: true, stderr: true, timeoutMs };
    const { sandboxId, containerId } = target;
    const socket = await hyperd.exec(sandboxId, containerId, request, limit.signal);
    return await readResult(socket, limit.signal);
  } finally {
    timer.cancel();
    signal.removeEventListener('abort', abort);
  }
}

async function readResult(
  socket: import('node:stream').Duplex,
  limit: AbortSignal,
): Promise<CommandResult> {
  const parts: Buffer[] = [];
  let size = 0;
  let exit: ProcessExit | undefined;
  try {
    for await (const { channel, payload } of readFrames(socket)) {
      if (channel === STREAM_CHANNEL.exit) {
        exit = JSON.parse(payload.toString('utf8')) as ProcessExit;
        break;
      }
      if (size < OUTPUT_BYTES_MAX) parts.push(payload);
      size += payload.length;
    }
  } catch (error) {
    if (!limit.aborted) throw error;
  } finally {
    socket.destroy();
  }
  const output = Buffer.concat(parts).subarray(0, OUTPUT_BYTES_MAX).toString('utf8');
  // hyperd ends a command that is too slow with SIGKILL.
  return { exitCode: exit?.exitCode ?? 137, output, timedOut: !exit || exit.signal === SIGKILL };
}
