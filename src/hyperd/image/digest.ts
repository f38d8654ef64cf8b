import { createHash } from 'node:crypto';
import type { Hash } from 'node:crypto';

/** `algorithm:hex`, of the two algorithms that the OCI image specification registers. */
export type Digest = string;

const DIGEST = /^(?:sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128})$/;

/** Strictly: an algorithm that is supported, and as many hexadecimal digits as it has. */
export function isDigest(text: unknown): text is Digest {
  return typeof text === 'string' && DIGEST.test(text);
}

export function digestAlgorithm(digest: Digest): 'sha256' | 'sha512' {
  return digest.startsWith('sha512:') ? 'sha512' : 'sha256';
}

/** The part after the colon: safe as a file name. */
export function digestHex(digest: Digest): string {
  return digest.slice(digest.indexOf(':') + 1);
}

/** A hash of the algorithm that `digest` names. */
export function hashFor(digest: Digest): Hash {
  return createHash(digestAlgorithm(digest));
}

export function sha256(content: string | Uint8Array): Digest {
  return `sha256:${createHash('sha256').update(content).digest('hex')}`;
}
