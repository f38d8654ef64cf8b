import { createHash } from 'node:crypto';
import type { Hash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, open, readdir, rename, rm, stat, statfs } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { assert } from '../../base/assert.ts';
import { syncDirectory } from '../../base/files.ts';
import { digestAlgorithm, digestHex, hashFor, isDigest } from './digest.ts';
import type { Digest } from './digest.ts';
import { ImageError } from './store.ts';

/**
 * Blobs on disk, named by their digest. A blob that is there is whole, verified and durable:
 * it is written under `ingest/`, hashed on the way, synced, and renamed.
 *
 *   blobs/<algorithm>/<hex>    read-only
 *   ingest/<key>               what is still arriving; kept, so that it can go on later
 */
export interface ContentStore {
  path(digest: Digest): string;
  /** Bytes, or undefined where the blob is not there. */
  size(digest: Digest): Promise<number | undefined>;
  /** @throws ImageError TooLarge over `bytesMax` */
  read(digest: Digest, bytesMax: number): Promise<Buffer>;
  /** Opens what is arriving under `key`, where it stopped. One at a time for a key. */
  ingest(key: string): Promise<Ingest>;
  /** Stores bytes that are already in memory. */
  put(content: Uint8Array): Promise<Digest>;
  remove(digest: Digest): Promise<void>;
  list(): Promise<Blob[]>;
  /** Forgets what arrives under keys that nothing has touched since `olderThanMs`. */
  expireIngests(olderThanMs: number): Promise<number>;
}

export interface Blob {
  digest: Digest;
  bytes: number;
  storedAtMs: number;
}

/** Calls must not overlap. One of `commit`, `discard` and `close` ends it. */
export interface Ingest {
  /** Bytes that are there. */
  readonly offset: number;
  write(chunk: Uint8Array): Promise<void>;
  /** Starts again at 0. */
  restart(): Promise<void>;
  /**
   * Makes it a blob. A content of another digest is thrown away.
   * @throws ImageError DigestMismatch, NoSpace
   */
  commit(digest: Digest): Promise<void>;
  /** Keeps what is there for the next `ingest` of the key. */
  close(): Promise<void>;
  discard(): Promise<void>;
}

const KEY = /^[a-zA-Z0-9._-]{1,200}$/;

export interface ContentOptions {
  /** Of the file system: less is not left by any write. */
  freeBytesMin: number;
}

/** What is left of a disk for the rest of the machine, whose state may live on the same one. */
export const FREE_BYTES_MIN = 256 << 20;
/** How much is written between two looks at the free space. */
const SPACE_CHECK_BYTES = 16 << 20;

export async function openContentStore(
  directory: string,
  options: ContentOptions = { freeBytesMin: FREE_BYTES_MIN },
): Promise<ContentStore> {
  const ingestDirectory = join(directory, 'ingest');
  const blobPath = (digest: Digest) => {
    assert(isDigest(digest), 'content: a blob is named by a digest');
    return join(directory, 'blobs', digestAlgorithm(digest), digestHex(digest));
  };
  for (const name of ['blobs/sha256', 'blobs/sha512', 'ingest']) {
    await mkdir(join(directory, name), { recursive: true, mode: 0o700 });
  }
  const active = new Set<string>();
  const store: ContentStore = {
    path: blobPath,
    size: (digest) => sizeOf(blobPath(digest)),
    async read(digest, bytesMax) {
      const file = await open(blobPath(digest), 'r');
      try {
        const { size } = await file.stat();
        if (size > bytesMax) {
          throw new ImageError(
            'TooLarge',
            `${digest} has ${size} bytes, at most ${bytesMax} are allowed`,
          );
        }
        return await file.readFile();
      } finally {
        await file.close();
      }
    },
    async ingest(key) {
      assert(KEY.test(key) && !active.has(key), `content: "${key}" is arriving already`);
      active.add(key);
      try {
        await checkSpace(directory, options.freeBytesMin, 0);
        return await openIngest(join(ingestDirectory, key), {
          blobPath,
          checkSpace: () => checkSpace(directory, options.freeBytesMin, SPACE_CHECK_BYTES),
          release: () => active.delete(key),
        });
      } catch (error) {
        active.delete(key);
        throw storageError(error);
      }
    },
    async put(content) {
      const digest: Digest = `sha256:${createHash('sha256').update(content).digest('hex')}`;
      // Also where it is there already: its age then says that it is wanted again.
      const ingest = await store.ingest(`put-${digestHex(digest)}-${putCount++}`);
      try {
        await ingest.restart();
        await ingest.write(content);
      } catch (error) {
        await ingest.discard();
        throw error;
      }
      await ingest.commit(digest);
      return digest;
    },
    remove: (digest) => rm(blobPath(digest), { force: true }),
    list: () => listBlobs(directory),
    async expireIngests(olderThanMs) {
      let count = 0;
      for (const name of await readdir(ingestDirectory)) {
        if (active.has(name)) continue;
        const path = join(ingestDirectory, name);
        const info = await stat(path).catch(() => undefined);
        if (info === undefined || info.mtimeMs >= olderThanMs) continue;
        await rm(path, { force: true });
        count += 1;
      }
      return count;
    },
  };
  let putCount = 0;
  return store;
}

/** @throws ImageError NoSpace where `wantedBytes` more would leave too little */
export async function checkSpace(
  directory: string,
  freeBytesMin: number,
  wantedBytes: number,
): Promise<void> {
  const info = await statfs(directory);
  const freeBytes = info.bavail * info.bsize;
  if (freeBytes - freeBytesMin >= wantedBytes) return;
  throw new ImageError(
    'NoSpace',
    `no space left on the device for images: ${freeBytes} bytes are free, ` +
      `${wantedBytes} are needed and ${freeBytesMin} are kept free`,
    { transient: true },
  );
}

interface IngestOptions {
  blobPath: (digest: Digest) => string;
  checkSpace: () => Promise<void>;
  release: () => void;
}

async function openIngest(path: string, options: IngestOptions): Promise<Ingest> {
  const { blobPath, release } = options;
  const file = await open(path, 'a+', 0o600);
  let offset = 0;
  let hash: Hash = createHash('sha256');
  let failed = false;
  let unchecked = 0;
  try {
    ({ hash, offset } = await hashExisting(path));
  } catch (error) {
    await file.close();
    throw error;
  }
  const end = async (): Promise<void> => {
    release();
    await file.close();
  };
  const discard = async (): Promise<void> => {
    await end();
    await rm(path, { force: true });
  };
  return {
    get offset() {
      return offset;
    },
    async write(chunk) {
      try {
        unchecked += chunk.length;
        if (unchecked >= SPACE_CHECK_BYTES) {
          await options.checkSpace();
          unchecked = 0;
        }
        await writeFully(file, chunk);
      } catch (error) {
        failed = true;
        throw storageError(error);
      }
      hash.update(chunk);
      offset += chunk.length;
    },
    async restart() {
      await file.truncate(0);
      hash = createHash('sha256');
      offset = 0;
      failed = false;
    },
    async commit(digest) {
      try {
        assert(!failed, 'content: a failed ingest is not committed');
        const actual = await digestOf(path, hash, digest);
        if (actual !== digest) {
          throw new ImageError('DigestMismatch', `content has the digest ${actual}, not ${digest}`);
        }
        await file.chmod(0o444);
        await file.sync();
        const target = blobPath(digest);
        await rename(path, target);
        await syncDirectory(join(target, '..'));
      } catch (error) {
        await discard();
        throw storageError(error);
      }
      await end();
    },
    close: end,
    discard,
  };
}

/** The state of the hash after what an earlier run left behind. */
async function hashExisting(path: string): Promise<{ hash: Hash; offset: number }> {
  const hash = createHash('sha256');
  let offset = 0;
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) {
    hash.update(chunk as Buffer);
    offset += (chunk as Buffer).length;
  }
  return { hash, offset };
}

async function digestOf(path: string, hash: Hash, wanted: Digest): Promise<Digest> {
  if (digestAlgorithm(wanted) === 'sha256') return `sha256:${hash.digest('hex')}`;
  const other = hashFor(wanted);
  for await (const chunk of createReadStream(path)) other.update(chunk as Buffer);
  return `${digestAlgorithm(wanted)}:${other.digest('hex')}`;
}

async function writeFully(file: FileHandle, chunk: Uint8Array): Promise<void> {
  for (let done = 0; done < chunk.length;) {
    const { bytesWritten } = await file.write(chunk, done, chunk.length - done);
    done += bytesWritten;
  }
}

async function sizeOf(path: string): Promise<number | undefined> {
  try {
    return (await stat(path)).size;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

async function listBlobs(directory: string): Promise<Blob[]> {
  const blobs: Blob[] = [];
  for (const algorithm of ['sha256', 'sha512']) {
    for (const name of await readdir(join(directory, 'blobs', algorithm))) {
      const digest = `${algorithm}:${name}`;
      const info = await stat(join(directory, 'blobs', algorithm, name)).catch(() => undefined);
      if (!isDigest(digest) || info === undefined) continue;
      blobs.push({ digest, bytes: info.size, storedAtMs: info.mtimeMs });
    }
  }
  return blobs;
}

/** What the file system says when it is full, as an `ImageError`; everything else as it is. */
export function storageError(error: unknown): unknown {
  const code = (error as NodeJS.ErrnoException | undefined)?.code;
  if (code !== 'ENOSPC' && code !== 'EDQUOT' && code !== 'EFBIG') return error;
  return new ImageError('NoSpace', 'no space left on the device for images', {
    cause: error,
    transient: true,
  });
}
