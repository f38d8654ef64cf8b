import { createHash } from 'node:crypto';
import type { Hash } from 'node:crypto';
import { once } from 'node:events';
import { Readable } from 'node:stream';
import type { Transform } from 'node:stream';
import { posix } from 'node:path';
import { createGunzip, createZstdDecompress } from 'node:zlib';
import type { Ingest } from './content.ts';
import type { Digest } from './digest.ts';
import { IMAGE_BYTES_MAX } from './manifest.ts';
import { pin } from './pull.ts';
import type { PullContext } from './pull.ts';
import { ImageError } from './store.ts';
import { createTarReader, showName } from './tar.ts';
import type { TarEntry } from './tar.ts';

/**
 * An archive of images, taken apart: each of its files is a blob of the content store, whatever
 * it is. They are pinned until `release`.
 */
export interface UnpackedArchive {
  /** Follows links. */
  find(path: string): StoredFile | undefined;
  /** Lets go of all of them; what no image needs is removed. */
  release(): Promise<void>;
}

export interface StoredFile {
  digest: Digest;
  size: number;
}

/** An image of 256 layers has three files for each, as docker once wrote them. */
const FILES_MAX = 16_384;
const LINKS_FOLLOWED_MAX = 8;

interface Context extends Pick<PullContext, 'content' | 'pinned' | 'random'> {
  /** Those that nobody needs. */
  removeBlobs: (digests: ReadonlySet<Digest>) => Promise<void>;
}

/** @throws ImageError Malformed, TooLarge, NoSpace */
export async function unpackArchive(
  context: Context,
  archive: AsyncIterable<Uint8Array>,
  signal: AbortSignal | undefined,
): Promise<UnpackedArchive> {
  const unpacker = createUnpacker(context);
  // Reading is blocking, storing is not: what one chunk brings is stored before the next is read.
  const steps: (() => Promise<void>)[] = [];
  const reader = createTarReader({
    onEntry: (entry) => void steps.push(() => unpacker.begin(entry)),
    onData: (chunk) => void steps.push(() => unpacker.write(chunk)),
  });
  try {
    for await (const chunk of decompressed(archive)) {
      signal?.throwIfAborted();
      reader.push(chunk);
      for (const step of steps.splice(0)) await step();
    }
    reader.end();
    await unpacker.finish();
  } catch (error) {
    await unpacker.discard();
    await unpacker.release();
    throw error;
  }
  return unpacker;
}

interface OpenFile {
  path: string;
  ingest: Ingest;
  hash: Hash;
  size: number;
}

function createUnpacker({ content, pinned, random, removeBlobs }: Context) {
  const files = new Map<string, StoredFile>();
  const links = new Map<string, string>();
  const digests = new Set<Digest>();
  const key = Buffer.from(random.bytes(8)).toString('hex');
  let current: OpenFile | undefined;
  let count = 0;
  let totalBytes = 0;

  const finish = async () => {
    if (!current) return;
    const { path, ingest, hash, size } = current;
    current = undefined;
    const digest: Digest = `sha256:${hash.digest('hex')}`;
    if (!digests.has(digest)) pin(pinned, [digest], 1);
    digests.add(digest);
    await ingest.commit(digest);
    files.set(path, { digest, size });
  };
  return {
    finish,
    async begin(entry: TarEntry) {
      await finish();
      count += 1;
      if (count > FILES_MAX) {
        throw new ImageError('TooLarge', `archive has more than ${FILES_MAX} files`);
      }
      const path = posix.normalize(`/${entry.name}`);
      if (entry.type === 'symlink') {
        links.set(path, posix.resolve(posix.dirname(path), entry.linkName));
      } else if (entry.type === 'link') {
        links.set(path, posix.normalize(`/${entry.linkName}`));
      } else if (entry.type === 'file') {
        const ingest = await content.ingest(`load-${key}-${count}`);
        current = { path, ingest, hash: createHash('sha256'), size: 0 };
      } else if (entry.type !== 'directory') {
        const what = `${showName(entry.name)} is neither a file nor a directory`;
        throw new ImageError('Malformed', `this is no archive of images: ${what}`);
      }
    },
    async write(chunk: Buffer) {
      if (!current) return;
      totalBytes += chunk.length;
      if (totalBytes > IMAGE_BYTES_MAX) {
        throw new ImageError('TooLarge', `archive has more than ${IMAGE_BYTES_MAX} bytes`);
      }
      current.hash.update(chunk);
      current.size += chunk.length;
      await current.ingest.write(chunk);
    },
    find(path: string) {
      let at = posix.normalize(`/${path}`);
      for (let step = 0; step < LINKS_FOLLOWED_MAX && !files.has(at); step++) {
        at = links.get(at) ?? at;
      }
      return files.get(at);
    },
    async discard() {
      await current?.ingest.discard();
      current = undefined;
    },
    async release() {
      pin(pinned, [...digests], -1);
      await removeBlobs(digests);
    },
  };
}

const COMPRESSIONS: { magic: Buffer; open: () => Transform }[] = [
  { magic: Buffer.from([0x1f, 0x8b]), open: () => createGunzip() },
  { magic: Buffer.from([0x28, 0xb5, 0x2f, 0xfd]), open: () => createZstdDecompress() },
];

/** `docker save | gzip` is an archive too. */
async function* decompressed(archive: AsyncIterable<Uint8Array>): AsyncGenerator<Buffer> {
  const source = Readable.from(archive, { objectMode: false });
  try {
    if (source.readableLength === 0) await once(source, 'readable');
    const first = (source.read() ?? Buffer.alloc(0)) as Buffer;
    if (first.length > 0) source.unshift(first);
    const found = COMPRESSIONS.find(({ magic }) => first.subarray(0, magic.length).equals(magic));
    if (!found) {
      yield* source as AsyncIterable<Buffer>;
      return;
    }
    const stream = found.open();
    source.on('error', (error) => stream.destroy(error));
    source.pipe(stream);
    try {
      yield* stream as AsyncIterable<Buffer>;
    } catch (error) {
      const { code = '', message } = error as NodeJS.ErrnoException;
      if (!code.startsWith('Z')) throw error;
      throw new ImageError('Malformed', `archive cannot be decompressed: ${message}`);
    } finally {
      stream.destroy();
    }
  } finally {
    source.destroy();
  }
}
