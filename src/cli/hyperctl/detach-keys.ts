/** Looks for ctrl-p ctrl-q, docker's keys to let go of a container, in what is typed. */
export interface DetachKeys {
  /** @returns what is for the process; nothing of the keys themselves */
  push(chunk: Buffer): { bytes: Buffer; isDetached: boolean };
}

const CTRL_P = 0x10;
const CTRL_Q = 0x11;

/** The first key is kept back until the next one tells what it was. */
export function createDetachKeys(): DetachKeys {
  let isHeld = false;
  return {
    push(chunk) {
      const bytes: number[] = [];
      for (const byte of chunk) {
        if (isHeld && byte === CTRL_Q) {
          isHeld = false;
          return { bytes: Buffer.from(bytes), isDetached: true };
        }
        if (isHeld) bytes.push(CTRL_P);
        isHeld = byte === CTRL_P;
        if (!isHeld) bytes.push(byte);
      }
      return { bytes: Buffer.from(bytes), isDetached: false };
    },
  };
}
