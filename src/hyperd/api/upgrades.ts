import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { StatusError } from '../../api/status.ts';
import type { Clock } from '../../base/clock.ts';
import type { Daemon } from '../daemon/daemon.ts';
import { toStatusError } from './errors.ts';
import { BODY_BYTES_MAX, parseJson } from './requests.ts';
import type { Router } from './router.ts';
import { acceptUpgrade, readUpgradeBody, refuseUpgrade } from './upgrade.ts';

export interface UpgradeOptions {
  daemon: Daemon;
  clock: Clock;
  find: Router;
}

/** A stream that was accepted; runs until it is over. */
type Stream = { protocol: string; run: () => Promise<void> };

/**
 * Exec, attach and port: answers with an error as HTTP, or with 101 and then frames. Rejects with
 * what ended a stream early.
 */
export async function serveUpgrade(
  options: UpgradeOptions,
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
): Promise<void> {
  socket.on('error', () => socket.destroy());
  let stream: Stream;
  try {
    const body = await readUpgradeBody(request, socket, head, BODY_BYTES_MAX);
    stream = await openStream(options, request, body, socket);
  } catch (error) {
    refuseUpgrade(socket, toStatusError(error));
    return;
  }
  acceptUpgrade(socket, stream.protocol);
  await stream.run();
}

async function openStream(
  { daemon, clock, find }: UpgradeOptions,
  request: IncomingMessage,
  body: Buffer,
  socket: Duplex,
): Promise<Stream> {
  const path = new URL(request.url ?? '/', 'http://hyperd').pathname;
  const { route, segments } = find(request.method ?? 'GET', path);
  if (!route.upgrade) throw new StatusError('NotFound', `hyperd has no stream at ${path}`);
  const { protocol, open } = route.upgrade;
  const context = { daemon, clock, socket, body: <T>() => parseJson<T>(body) };
  return { protocol, run: await open(context, ...segments) };
}
