import type { Duplex, Readable } from 'node:stream';
import { STREAM_CHANNEL } from '../../api/hyperd.ts';
import type { AttachRequest, ExecRequest, ProcessExit, TerminalSize } from '../../api/hyperd.ts';
import { drained, readFrames, writeFrames } from '../../api/hyperstream.ts';
import type { Clock } from '../../base/clock.ts';
import { joinDuplexes } from '../../base/duplex.ts';
import type { GuestProcess } from '../agent/agent.ts';
import type { Container } from '../daemon/container.ts';
import type { Pod } from '../daemon/pod-interface.ts';
import type { Writable } from 'node:stream';

/**
 * The bridges between a client's socket and the guest. Whichever side is slow slows the other;
 * whichever ends takes the other with it. Frames: `api/hyperstream.ts`.
 */

const SIGKILL = 9;

interface InputTarget {
  stdin: Writable | undefined;
  resize: (size: TerminalSize) => Promise<void>;
}

/** A process of its own in a running container; it does not outlive the client's socket. */
export async function serveExec(
  socket: Duplex,
  process: GuestProcess,
  request: ExecRequest,
  clock: Clock,
): Promise<void> {
  const limit =
    request.timeoutMs > 0
      ? clock.after(request.timeoutMs, () => void process.signal(SIGKILL).catch(() => {}))
      : undefined;
  socket.on('close', () => process.close());
  // It may have gone while the process was being started.
  if (socket.destroyed) process.close();
  const stdin = request.stdin ? process.stdin : undefined;
  if (!stdin) process.stdin.end();
  const input = takeInput(socket, { stdin, resize: (size) => process.resize(size) });
  try {
    const output = { stdout: process.stdout, stderr: process.stderr };
    const copies = (['stdout', 'stderr'] as const).map((name) =>
      request[name] ? copyOut(socket, STREAM_CHANNEL[name], output[name]) : discard(output[name]),
    );
    await Promise.all(copies);
    await sendExit(socket, await process.exited);
  } finally {
    limit?.cancel();
    process.close();
    socket.end();
    await input;
  }
}

/**
 * The streams of the container's own process, from now on: all of them, where it has not been
 * started yet.
 */
export async function serveAttach(
  socket: Duplex,
  pod: Pod,
  container: Container,
  request: AttachRequest,
): Promise<void> {
  const { spec } = container.record;
  const takesInput = request.stdin && spec.stdin;
  const channels = new Map<1 | 2, number>();
  if (request.stdout) channels.set(1, STREAM_CHANNEL.stdout);
  if (request.stderr && !spec.process.tty) channels.set(2, STREAM_CHANNEL.stderr);
  const attached = container.attach(async (stream, bytes) => {
    const channel = channels.get(stream);
    if (channel !== undefined) await writeFrames(socket, channel, bytes);
  });
  const closed = new Promise<undefined>((resolve) => {
    if (socket.destroyed) resolve(undefined);
    else socket.once('close', () => resolve(undefined));
  });
  try {
    // The process keeps its stdin for the next client, unless it was promised to one only, or this
    // one says that there is no more.
    const ends = { atEnd: spec.stdinOnce || request.endStdin === true, atClose: spec.stdinOnce };
    const resize = (size: TerminalSize) =>
      pod.agent((agent) => agent.resizeContainer(spec.id, size));
    const begin = async () => {
      await Promise.race([container.started, closed]);
      const stdin = takesInput ? await stdinOf(pod, spec.id) : undefined;
      return { stdin, resize };
    };
    const input = begin()
      .catch(() => ({ stdin: undefined, resize }))
      .then((target) => takeInput(socket, target, ends));
    const exit = await Promise.race([container.exited, closed]);
    if (exit) await sendExit(socket, exit);
    socket.end();
    await input;
  } finally {
    attached.detach();
  }
}

function stdinOf(pod: Pod, containerId: string): Promise<Writable> {
  return pod.agent(async (agent) => agent.containerStdin(containerId));
}

/** One TCP connection inside the guest. */
export function servePort(socket: Duplex, connection: Duplex): Promise<void> {
  return joinDuplexes(socket, connection);
}

async function takeInput(
  socket: Duplex,
  { stdin, resize }: InputTarget,
  ends = { atEnd: true, atClose: true },
): Promise<void> {
  let target = stdin;
  try {
    // The other direction goes on when this one is over.
    const input = socket.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>;
    for await (const { channel, payload } of readFrames(input)) {
      if (channel === STREAM_CHANNEL.resize) await resize(parseSize(payload)).catch(() => {});
      if (channel !== STREAM_CHANNEL.stdin || !target) continue;
      if (payload.length > 0) target = await feed(target, payload);
      else if (ends.atEnd) target.end();
    }
  } catch {
    // The client sent what is no frame, or went away: its input is over.
    socket.resume();
  }
  if (ends.atClose) target?.end();
}

/** Undefined when the process takes no more. */
async function feed(target: Writable, payload: Buffer): Promise<Writable | undefined> {
  if (target.writableEnded || target.destroyed) return undefined;
  if (target.write(payload)) return target;
  return drained(target).then(
    () => target,
    () => undefined,
  );
}

function parseSize(payload: Buffer): TerminalSize {
  const { width, height } = JSON.parse(payload.toString('utf8')) as TerminalSize;
  return { width: clampSize(width), height: clampSize(height) };
}

/** The kernel keeps terminal sizes in 16 bits. */
function clampSize(value: number): number {
  return Math.min(65535, Math.max(0, Math.trunc(Number(value)) || 0));
}

async function copyOut(socket: Duplex, channel: number, source: Readable): Promise<void> {
  for await (const chunk of source as AsyncIterable<Buffer>)
    await writeFrames(socket, channel, chunk);
  await writeFrames(socket, channel, Buffer.alloc(0));
}

async function discard(source: Readable): Promise<void> {
  source.resume();
  await new Promise((resolve) => source.once('close', resolve));
}

async function sendExit(socket: Duplex, exit: ProcessExit): Promise<void> {
  await writeFrames(socket, STREAM_CHANNEL.exit, Buffer.from(JSON.stringify(exit)));
}
