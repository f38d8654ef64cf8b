import { StatusError } from '../../api/status.ts';
import { readBody } from '../codec/body.ts';
import { statusReply } from '../codec/reply.ts';
import type { ServerContext } from '../context.ts';
import type { ApiExchange, ApiReply } from './exchange.ts';

/** An API of another kind on the server's port. It finds out itself who asks, and what they may. */
export interface Mount {
  serves(path: string): boolean;
  /** Never rejects for what a client did. */
  handle(request: MountRequest): Promise<MountResponse>;
}

export interface MountRequest {
  method: string;
  path: string;
  query: URLSearchParams;
  headers: Record<string, string | undefined>;
  body: Uint8Array;
  /** The peer's address. */
  source: string;
}

export interface MountResponse {
  status: number;
  headers: Record<string, string>;
  body: string;
}

type Handle = (exchange: ApiExchange) => Promise<ApiReply>;

/** The mounts' paths go to them, everything else to the server's own pipeline. */
export function withMounts(server: ServerContext, mounts: readonly Mount[], own: Handle): Handle {
  let inFlight = 0;
  return async (exchange) => {
    const mount = mounts.find((each) => each.serves(exchange.path));
    if (!mount) return own(exchange);
    const startMs = server.clock.monotonicMs();
    let reply: ApiReply;
    inFlight += 1;
    try {
      if (inFlight > server.limits.mountsInFlight) throw tooMany();
      reply = await answer(server, mount, exchange);
    } catch (error) {
      if (!(error instanceof StatusError)) throw error;
      reply = statusReply(error);
    } finally {
      inFlight -= 1;
    }
    const tookMs = server.clock.monotonicMs() - startMs;
    server.metrics.countRequest('', exchange.method, reply.status, tookMs);
    return reply;
  };
}

async function answer(
  server: ServerContext,
  mount: Mount,
  exchange: ApiExchange,
): Promise<ApiReply> {
  const { method, path, query, headers, remoteAddress: source } = exchange;
  const body = await readBody(exchange, server.limits, server.clock);
  const response = await mount.handle({ method, path, query, headers, body, source });
  return {
    status: response.status,
    headers: response.headers,
    body: Buffer.from(response.body, 'utf8'),
  };
}

function tooMany(): StatusError {
  const message = 'Too many requests, please try again later.';
  return new StatusError('TooManyRequests', message, { details: { retryAfterSeconds: 1 } });
}
