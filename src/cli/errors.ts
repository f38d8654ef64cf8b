/** Something that the person at the terminal can put right. Printed without a stack, exit code 1. */
export class UsageError extends Error {
  override name = 'UsageError';
}

/** The person at the terminal broke off. Nothing is printed; the exit code is that of ctrl-C. */
export class CancelledError extends Error {
  override name = 'CancelledError';
}
