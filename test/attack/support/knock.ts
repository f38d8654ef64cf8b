import type { Duplex } from 'node:stream';
import { connect } from 'node:tls';
import { systemClock } from '../../../src/base/clock.ts';
import type { KeyPair } from '../../../src/auth/pki.ts';
import type { Answer } from './client.ts';

/** How a request asks for a stream, if it does. */
export type Upgrade = 'websocket' | 'spdy';

export interface Knock {
  host: string;
  port: number;
  /** What leads there. @default a connection from this machine */
  through?: Duplex;
  pair?: KeyPair;
  request: string;
  /** Enough of an endless answer. */
  until: (text: string) => boolean;
}

/** For an answer that has to come; one that is whole is not waited on, nor is a connection's end. */
const PATIENCE_MS = 45_000;

/** A request for a stream, or without `upgrade` an ordinary one, as bytes of HTTP/1.1. */
export function requestText(
  path: string,
  {
    upgrade,
    method,
    protocol,
    token,
  }: { upgrade?: Upgrade; method?: string; protocol?: string; token?: string },
): string {
  const headers: Record<Upgrade, string[]> = {
    websocket: [
      ...['Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Version: 13'],
      ...['Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==', `Sec-WebSocket-Protocol: ${protocol}`],
    ],
    spdy: [
      ...['Connection: Upgrade', 'Upgrade: SPDY/3.1', 'Content-Length: 0'],
      `X-Stream-Protocol-Version: ${protocol}`,
    ],
  };
  const lines = [
    `${method ?? (upgrade === 'spdy' ? 'POST' : 'GET')} ${path} HTTP/1.1`,
    'Host: attacked',
    ...(upgrade ? headers[upgrade] : ['Connection: close']),
    ...(token === undefined ? [] : [`Authorization: Bearer ${token}`]),
  ];
  return `${lines.join('\r\n')}\r\n\r\n`;
}

/** Servers keep a connection open behind what they refuse. A stream (101) has no end to see. */
function isWhole(text: string): boolean {
  const [head = '', body] = text.split('\r\n\r\n', 2);
  if (body === undefined || head.startsWith('HTTP/1.1 101')) return false;
  const [, length] = /^content-length: (\d+)/im.exec(head) ?? [];
  return length !== undefined && text.length - head.length - 4 >= Number(length);
}

/**
 * Speaks TLS with whoever answers, whatever certificate it shows. All that comes back is the text;
 * the status is 0 where that is not HTTP.
 */
export async function knock(options: Knock): Promise<Answer> {
  const { host, port, through, pair, request, until } = options;
  const { promise, resolve } = Promise.withResolvers<void>();
  const startMs = performance.now();
  const timer = systemClock.after(PATIENCE_MS, resolve);
  const place = through ? { socket: through } : { host, port };
  const socket = connect({ ...place, ...pair, rejectUnauthorized: false });
  let text = '';
  socket.on('secureConnect', () => socket.write(request));
  socket.on('data', (chunk: Buffer) => {
    text += chunk.toString();
    if (until(text) || isWhole(text)) resolve();
  });
  for (const event of ['end', 'error', 'close']) socket.on(event, () => resolve());
  await promise;
  timer.cancel();
  socket.destroy();
  through?.destroy();
  const status = Number(/^HTTP\/1\.1 (\d+)/.exec(text)?.[1] ?? 0);
  return { status, headers: {}, text, tookMs: performance.now() - startMs };
}
