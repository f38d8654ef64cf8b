import type { Clock } from '../../base/clock.ts';
import { StatusError, badRequest } from '../../api/status.ts';
import type { ApiServerLimits } from '../limits.ts';
import type { ApiExchange } from '../server/exchange.ts';

/**
 * Reads a request's body to its end.
 *
 * @throws StatusError 413 above the limit, 408 when it does not arrive in time, 415 when it is
 *   compressed
 */
export async function readBody(
  exchange: ApiExchange,
  limits: ApiServerLimits,
  clock: Clock,
): Promise<Uint8Array> {
  const encoding = exchange.headers['content-encoding'];
  if (encoding && encoding !== 'identity') {
    const message = `the content encoding "${encoding}" is not accepted: send the body plain`;
    throw new StatusError('UnsupportedMediaType', message);
  }
  if (Number(exchange.headers['content-length'] ?? 0) > limits.requestBodyBytes) {
    throw tooLarge(limits);
  }
  const iterator = exchange.body[Symbol.asyncIterator]();
  let expire = () => {};
  const expired = new Promise<never>((_, reject) => {
    expire = () => reject(bodyTimeout(limits));
  });
  const timer = clock.after(limits.requestBodyTimeoutMs, () => expire());
  try {
    return await collect(iterator, expired, limits);
  } catch (error) {
    // The iterator is not returned to here: that would wait for the chunk that never comes.
    if (error instanceof StatusError) throw error;
    throw badRequest('the request body could not be read to its end');
  } finally {
    timer.cancel();
    expired.catch(() => {});
  }
}

async function collect(
  iterator: AsyncIterator<Uint8Array>,
  expired: Promise<never>,
  limits: ApiServerLimits,
): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for (;;) {
    const next = await Promise.race([iterator.next(), expired]);
    if (next.done) break;
    size += next.value.length;
    if (size > limits.requestBodyBytes) throw tooLarge(limits);
    chunks.push(next.value);
  }
  return chunks.length === 1 ? (chunks[0] as Uint8Array) : Buffer.concat(chunks, size);
}

function tooLarge(limits: ApiServerLimits): StatusError {
  const message = `Request entity too large: limit is ${limits.requestBodyBytes}`;
  return new StatusError('RequestEntityTooLarge', message);
}

function bodyTimeout(limits: ApiServerLimits): StatusError {
  const seconds = limits.requestBodyTimeoutMs / 1000;
  const message = `the request body did not arrive within ${seconds} seconds`;
  return new StatusError('Timeout', message, { code: 408 });
}
