/**
 * A broken invariant: the program is wrong, not its input. It is never caught and answered;
 * the process ends and its supervisor starts it again from durable state.
 */
export class AssertionError extends Error {
  override name = 'AssertionError';
}

export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new AssertionError(message);
}
