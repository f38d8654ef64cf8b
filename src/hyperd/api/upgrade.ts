import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import type { StatusError } from '../../api/status.ts';
import { badRequest } from '../../api/status.ts';

/**
 * Node hands over the socket right after the headers of an upgrade; the request's body is still
 * to be read from it. What follows the body belongs to the stream and is put back.
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
  if (head.length > 0) socket.unshift(head);
  if (length === 0) return Buffer.alloc(0);
  const parts: Buffer[] = [];
  for (let missing = length; missing > 0; ) {
    const chunk = (await readChunk(socket)) as Buffer;
    const wanted = chunk.subarray(0, missing);
    parts.push(wanted);
    missing -= wanted.length;
    if (wanted.length < chunk.length) socket.unshift(chunk.subarray(wanted.length));
  }
  return Buffer.concat(parts);
}

function readChunk(socket: Duplex): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const attempt = () => {
      const chunk = socket.read();
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
