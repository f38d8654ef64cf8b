import type { Duplex } from 'node:stream';
import type { Clock } from '../../base/clock.ts';

/** After one side has ended, the other gets this long to take what is still on its way. */
const LINGER_MS = 10_000;

export interface SpliceOptions {
  clock: Clock;
  /** What was read of the client already. */
  head: Buffer;
  /** Ends both sides. */
  closing: AbortSignal;
  /** Until the first byte from `upstream`. */
  firstAnswerTimeoutMs: number;
  /** Called once, when both sides are gone. */
  onEnd: () => void;
}

/** How an answer begins that lets the connection leave HTTP. */
const SWITCHING = 'HTTP/1.1 101';

/**
 * Joins two connections: bytes go both ways with back-pressure, the end of one direction is
 * passed on while the other goes on, and neither side outlives the other. Nothing of the client
 * goes to `upstream` before that has agreed to leave HTTP: it would be a further request, made
 * with the server's own certificate.
 */
export function splice(client: Duplex, upstream: Duplex, options: SpliceOptions): void {
  const sides = [client, upstream];
  let openCount = sides.length;
  const destroyBoth = () => {
    for (const side of sides) side.destroy();
  };
  const answerTimer = options.clock.after(options.firstAnswerTimeoutMs, destroyBoth);
  upstream.once('data', () => answerTimer.cancel());
  options.closing.addEventListener('abort', destroyBoth, { once: true });
  let linger: { cancel(): void } | undefined;
  for (const side of sides) {
    side.on('error', () => side.destroy());
    side.once('close', () => {
      openCount -= 1;
      if (openCount > 0) {
        for (const other of sides) if (!other.destroyed && !other.writableEnded) other.end();
        linger = options.clock.after(LINGER_MS, destroyBoth);
        return;
      }
      linger?.cancel();
      answerTimer.cancel();
      options.closing.removeEventListener('abort', destroyBoth);
      options.onEnd();
    });
  }
  if (sides.some((side) => side.destroyed)) {
    // One was gone before it could be joined: its close event will not come again.
    destroyBoth();
    options.onEnd();
    return;
  }
  let answer = '';
  const inspect = (chunk: Buffer) => {
    answer += chunk.toString('latin1', 0, SWITCHING.length - answer.length);
    if (answer.length < SWITCHING.length) return;
    upstream.off('data', inspect);
    if (answer === SWITCHING) {
      if (options.head.length > 0) upstream.write(options.head);
      client.pipe(upstream);
    } else {
      client.resume();
      upstream.end();
    }
  };
  upstream.on('data', inspect);
  upstream.pipe(client);
}
