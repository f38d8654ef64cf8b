import { randomBytes } from 'node:crypto';

/**
 * Bytes by which a loss, a repetition or a change of order shows: rounds of one random block, each
 * behind its number. Within a round nothing is like anything else, and no two rounds are alike.
 */
export interface Pattern {
  block: Buffer;
  round(index: number): Buffer;
  /** Checks what arrives against the pattern from its beginning. */
  checker(onRound: (index: number) => void): PatternChecker;
}

export interface PatternChecker {
  /** @throws Error naming the first byte that is not as it should be */
  take(bytes: Buffer): void;
  /** Of whole rounds. */
  readonly byteCount: number;
}

/** A line such as `printf '%015d\n'` writes. */
const NUMBER_DIGITS = 15;

export function createPattern(blockBytes: number): Pattern {
  const block = randomBytes(blockBytes);
  const round = (index: number) =>
    Buffer.concat([Buffer.from(`${String(index).padStart(NUMBER_DIGITS, '0')}\n`), block]);
  return {
    block,
    round,
    checker(onRound) {
      let index = 0;
      let wanted = round(index);
      let at = 0;
      let byteCount = 0;
      return {
        take(bytes) {
          for (let start = 0; start < bytes.length;) {
            const length = Math.min(bytes.length - start, wanted.length - at);
            const isSame = bytes.compare(wanted, at, at + length, start, start + length) === 0;
            if (!isSame) {
              const where = `near byte ${byteCount + at} of the stream`;
              throw new Error(`Bytes were lost, repeated or changed their order ${where}`);
            }
            start += length;
            at += length;
            byteCount += length;
            if (at < wanted.length) continue;
            onRound(index);
            index += 1;
            wanted = round(index);
            at = 0;
          }
        },
        get byteCount() {
          return byteCount;
        },
      };
    },
  };
}
