import { AUTHENTICATED_GROUP } from '../../auth/authenticators.ts';
import type { UserInfo } from '../../api/auth.ts';
import { StatusError } from '../../api/status.ts';
import type { ApiRequest, ApiResponse, Transport } from '../../client/transport.ts';
import { EMPTY } from './exchange.ts';
import type { ApiExchange, ApiReply } from './exchange.ts';

/** The transport of parts in the server's own process: the same pipeline, no sockets, no TLS. */
export function createLoopback(
  user: UserInfo,
  handle: (exchange: ApiExchange) => Promise<ApiReply>,
): Transport {
  const closing = new AbortController();
  const groups = new Set([...user.groups, AUTHENTICATED_GROUP]);
  const fullUser = { ...user, groups: [...groups] };
  return {
    async request(request) {
      if (closing.signal.aborted) {
        throw new StatusError('ServiceUnavailable', 'the transport is closed');
      }
      const own = new AbortController();
      const signals = [own.signal, closing.signal, ...(request.signal ? [request.signal] : [])];
      const signal = AbortSignal.any(signals);
      const reply = await handle(exchangeOf(request, fullUser, signal));
      return responseOf(reply, own, request.method === 'HEAD');
    },
    async close() {
      closing.abort();
    },
  };
}

function exchangeOf(request: ApiRequest, user: UserInfo, signal: AbortSignal): ApiExchange {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(request.query ?? {})) {
    for (const one of [value ?? []].flat()) query.append(name, one);
  }
  const headers: ApiExchange['headers'] = {};
  for (const [name, value] of Object.entries(request.headers ?? {})) {
    headers[name.toLowerCase()] = value;
  }
  const { body } = request;
  return {
    method: request.method,
    path: request.path,
    rawQuery: query.toString(),
    query,
    headers,
    body: once(typeof body === 'string' ? Buffer.from(body, 'utf8') : (body ?? EMPTY)),
    signal,
    clientCertificate: undefined,
    clientCertificateError: undefined,
    user,
    remoteAddress: '',
    upgradable: false,
  };
}

async function* once(bytes: Uint8Array): AsyncIterable<Uint8Array> {
  if (bytes.length > 0) yield bytes;
}

function responseOf(reply: ApiReply, own: AbortController, headOnly: boolean): ApiResponse {
  const headers: Record<string, string> = {};
  for (const [name, value] of Object.entries(reply.headers)) {
    headers[name] = [value].flat().join(', ');
  }
  const { body } = reply;
  if (body instanceof Uint8Array) {
    return { status: reply.status, headers, body: once(headOnly ? EMPTY : body) };
  }
  return { status: reply.status, headers, body: endWithReader(body, own) };
}

/** Breaking off the loop over the body ends the request behind it. */
async function* endWithReader(
  body: AsyncIterable<Uint8Array>,
  own: AbortController,
): AsyncIterable<Uint8Array> {
  try {
    yield* body;
  } finally {
    own.abort();
  }
}
