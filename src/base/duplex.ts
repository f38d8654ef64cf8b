import type { Duplex } from 'node:stream';
import { finished } from 'node:stream/promises';

/**
 * Joins two connections until both are over, then destroys both. Bytes go both ways with
 * back-pressure, and each direction ends by itself: what one side sent before it left still
 * arrives. (`pipeline` both ways would not do: the close of a side that has said all would
 * destroy the other before that has been written.) A side that breaks off breaks the other off.
 */
export async function joinDuplexes(a: Duplex, b: Duplex): Promise<void> {
  await Promise.all([copy(a, b), copy(b, a)]);
  a.destroy();
  b.destroy();
}

/** Resolves when `to` has taken all of `from`, or takes nothing any more. */
async function copy(from: Duplex, to: Duplex): Promise<void> {
  const over = finished(to, { readable: false }).catch(() => {});
  const closed = () => {
    if (!from.readableEnded) to.destroy();
  };
  if (from.destroyed) closed();
  from.once('close', closed);
  from.on('error', () => from.destroy());
  from.pipe(to);
  await over;
  // Nobody takes it now, but it has to be read, or its end would never be seen.
  from.unpipe(to);
  from.resume();
}
