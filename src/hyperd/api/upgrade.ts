import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import type { StatusError } from '../../api/status.ts';
import { badRequest } from '../../api/status.ts';

/**
 * The body of a request that asks for an upgrade. Node 26 delivers it through the request; Node 24
 * ends the request with its headers and leaves the body to whoever reads the socket. What follows
 * it is the stream's.
 */
export async function readUpgradeBody(
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
  bytesMax: number,
): Promise<Buffer> {
  const length = Number(request.headers['content-length'] ?? 0);
  if (!Number.isSafeInteger(length) || length < 0 || length > bytesMax) {
    throw badRequest(`Request body must have at most ${bytesMax} bytes, has ${length}`);
  }
  const parts: Buffer[] = [];
  if (length > 0) for await (const chunk of request as AsyncIterable<Buffer>) parts.push(chunk);
  if (head.length > 0) socket.unshift(head);
  for (let missing = length - sizeOf(parts); missing > 0; missing = length - sizeOf(parts)) {
    const chunk = await readChunk(socket);
    parts.push(chunk.subarray(0, missing));
    if (chunk.length > missing) socket.unshift(chunk.subarray(missing));
  }
  return Buffer.concat(parts);
}

function sizeOf(parts: Buffer[]): number {
  return parts.reduce((sum, part) => sum + part.length, 0);
}

function readChunk(socket: Duplex): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const attempt = () => {
      const chunk = socket.read() as Buffer | null;
      if (chunk === null) return;
      finish();
      resolve(chunk);
    };
    const fail = () => {
      finish();
      reject(badRequest('Request body is cut off'));
    };
    const finish = () => {
      socket.off('readable', attempt);
      socket.off('close', fail);
      socket.off('end', fail);
    };
    socket.on('readable', attempt);
    socket.on('close', fail);
    socket.on('end', fail);
    attempt();
  });
}

export function acceptUpgrade(socket: Duplex, protocol: string): void {
  const head = ['HTTP/1.1 101 Switching Protocols', `Upgrade: ${protocol}`, 'Connection: Upgrade'];
  socket.write(`${head.join('\r\n')}\r\n\r\n`);
}

export function refuseUpgrade(socket: Duplex, error: StatusError): void {
  const body = JSON.stringify(error.toStatus());
  const head = [
    `HTTP/1.1 ${error.code} ${error.reason || 'Error'}`,
    'Content-Type: application/json',
    `Content-Length: ${Buffer.byteLength(body)}`,
    'Connection: close',
  ];
  socket.end(`${head.join('\r\n')}\r\n\r\n${body}`);
}
