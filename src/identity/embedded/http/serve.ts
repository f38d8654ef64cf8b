import { createServer } from 'node:http';
import type { IncomingMessage, Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { BODY_BYTES_MAX } from './api.ts';
import type { IdentityApi } from './api.ts';

export interface IdentityServer {
  /** `http://127.0.0.1:<port>` */
  origin: string;
  /** Answers from now on; until then it says 503. */
  use(api: IdentityApi): void;
  close(): Promise<void>;
}

/** The API alone, on a loopback port of its own. Its address is known before it answers. */
export async function serveIdentityApi(): Promise<IdentityServer> {
  let api: IdentityApi | undefined;
  const server: Server = createServer((request, response) => {
    void readBody(request).then(async (body) => {
      const url = new URL(request.url ?? '/', 'http://localhost');
      const { method = 'GET', headers } = request;
      const { pathname: path, searchParams: query } = url;
      const source = request.socket.remoteAddress;
      const answer = await api?.({ method, path, query, headers, body, source });
      response.writeHead(answer?.status ?? 503, answer?.headers);
      response.end(answer?.body);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  return {
    origin: `http://127.0.0.1:${port}`,
    use(next) {
      api = next;
    },
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

/** What is beyond the limit is read and dropped, all but one byte that tells that it was there. */
async function readBody(request: IncomingMessage): Promise<Uint8Array> {
  const chunks: Buffer[] = [];
  let room = BODY_BYTES_MAX + 1;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    chunks.push(chunk.subarray(0, room));
    room -= Math.min(room, chunk.length);
  }
  return Buffer.concat(chunks);
}
