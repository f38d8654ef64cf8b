import { connect as connectHttp2 } from 'node:http2';
import type { ClientHttp2Session } from 'node:http2';
import { connect as connectTls } from 'node:tls';
import type { TLSSocket } from 'node:tls';
import { systemClock } from '../../base/clock.ts';
import { systemRandom } from '../../base/random.ts';
import { createCa, createCaSigner, createKey } from '../../auth/pki.ts';
import type { CaSigner, KeyPair } from '../../auth/pki.ts';

/** A throw-away authority with a server certificate for 127.0.0.1. */
export interface TestPki {
  signer: CaSigner;
  server: KeyPair;
  ca: string;
}

export function createTestPki(): TestPki {
  const options = { clock: systemClock, random: systemRandom };
  const caKey = createKey();
  const caCert = createCa(caKey, options);
  const signer = createCaSigner({ caCert, caKey, ...options });
  return { signer, server: signer.serverPair('localhost', ['127.0.0.1', 'localhost']), ca: caCert };
}

export interface HttpAnswer {
  status: number;
  headers: Record<string, string>;
  body: string;
}

/** Opens a TLS connection that speaks HTTP/1.1, and waits until it stands. */
export function openTls(port: number, ca: string, pair?: KeyPair): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const client = pair ? { cert: pair.cert, key: pair.key } : {};
    const options = { host: '127.0.0.1', port, ca, ALPNProtocols: ['http/1.1'], ...client };
    const socket = connectTls(options, () => resolve(socket));
    socket.once('error', reject);
  });
}

/** Writes raw text and returns all that comes back until the server ends the connection. */
export async function exchange(
  socket: TLSSocket,
  ...parts: (string | Uint8Array)[]
): Promise<string> {
  const chunks: Buffer[] = [];
  socket.on('error', () => {});
  const ended = new Promise<void>((resolve) => {
    socket.on('data', (chunk: Buffer) => void chunks.push(chunk));
    socket.once('close', () => resolve());
    socket.once('end', () => resolve());
  });
  for (const part of parts) socket.write(part);
  await ended;
  socket.destroy();
  return Buffer.concat(chunks).toString('utf8');
}

export function openHttp2(port: number, ca: string, pair?: KeyPair): ClientHttp2Session {
  const client = pair ? { cert: pair.cert, key: pair.key } : {};
  const session = connectHttp2(`https://127.0.0.1:${port}`, { ca, ...client });
  session.on('error', () => {});
  return session;
}

export function requestHttp2(
  session: ClientHttp2Session,
  method: string,
  path: string,
  options: { headers?: Record<string, string>; body?: string | Uint8Array } = {},
): Promise<HttpAnswer> {
  return new Promise((resolve, reject) => {
    const stream = session.request({ ':method': method, ':path': path, ...options.headers });
    const answer: HttpAnswer = { status: 0, headers: {}, body: '' };
    stream.on('response', (headers) => {
      answer.status = Number(headers[':status']);
      for (const [name, value] of Object.entries(headers)) answer.headers[name] = String(value);
    });
    const chunks: Buffer[] = [];
    stream.on('data', (chunk: Buffer) => void chunks.push(chunk));
    stream.on('error', reject);
    stream.on('end', () => resolve({ ...answer, body: Buffer.concat(chunks).toString('utf8') }));
    stream.end(options.body);
  });
}
