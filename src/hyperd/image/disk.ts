import { once } from 'node:events';
import { closeSync, createReadStream, fchmodSync, fdatasyncSync, ftruncateSync } from 'node:fs';
import { openSync, readSync, statfsSync, unlinkSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { createGunzip, createZstdDecompress } from 'node:zlib';
import type { Transform } from 'node:stream';
import { assert } from '../../base/assert.ts';
import { FREE_BYTES_MIN } from './content.ts';
import { hashFor } from './digest.ts';
import { writeErofs } from './erofs.ts';
import { createLayerReader, newTarget } from './layers.ts';
import type { Spool } from './layers.ts';
import { ImageError } from './store.ts';

/**
 * Turns the layers of an image into one read-only disk. Everything here is bounded by
 * `DiskLimits`, because layers are written by strangers. Blocking file access is used on
 * purpose: this runs in a thread of its own (`disk-thread.ts`), where it is fastest.
 */
export interface DiskRequest {
  layers: DiskLayer[];
  /** Must not exist. Left behind when the build fails. */
  output: string;
  /** Where unnamed temporary files are made; as large as the unpacked image. */
  spoolDirectory: string;
  /** 32 hex digits. */
  uuid: string;
  limits: DiskLimits;
}

export interface DiskLayer {
  /** The blob, as it came from the registry. */
  path: string;
  bytes: number;
  digest: string;
  /** Digest of the archive inside, from the image's configuration. */
  diffId: string;
}

export interface DiskLimits {
  /** All layers together, decompressed. */
  unpackedBytesMax: number;
  /** Of decompressed to compressed bytes of one layer, once it is larger than `ratioFreeBytes`. */
  ratioMax: number;
  ratioFreeBytes: number;
  entriesMax: number;
  /** Of the file system that the disk is built on: left for the rest of the machine. */
  freeBytesMin: number;
  /** For building the disk. */
  timeoutMs: number;
}

export const DISK_LIMITS: DiskLimits = {
  unpackedBytesMax: 32 * 2 ** 30,
  ratioMax: 200,
  ratioFreeBytes: 512 << 20,
  entriesMax: 500_000,
  freeBytesMin: FREE_BYTES_MIN,
  timeoutMs: 15 * 60_000,
};

export interface DiskResult {
  bytes: number;
  inodeCount: number;
  unpackedBytes: number;
}

const READ_BYTES = 256 << 10;
const SPOOL_BUFFER_BYTES = 1 << 20;
/** How much is written between two looks at the free space. */
const SPACE_CHECK_BYTES = 16 << 20;

interface OpenSpool extends Spool {
  flush(): void;
  read(offset: number, into: Buffer): void;
  close(): void;
}

/**
 * @throws ImageError Malformed, DigestMismatch, TooLarge; and what the file system throws
 */
export async function buildDisk(request: DiskRequest): Promise<DiskResult> {
  const target = newTarget(request.limits.entriesMax);
  const spools: OpenSpool[] = [];
  const write = createWriter(request);
  let unpackedBytes = 0;
  try {
    for (const [index, layer] of request.layers.entries()) {
      const spool = openSpool(
        join(request.spoolDirectory, `spool-${request.uuid}-${index}`),
        write,
      );
      spools.push(spool);
      const reader = createLayerReader(target, index, spool);
      const budget = request.limits.unpackedBytesMax - unpackedBytes;
      unpackedBytes += await unpackLayer(layer, reader, budget, request.limits);
      spool.flush();
    }
    const fd = openSync(request.output, 'wx', 0o600);
    try {
      const result = writeErofs(
        target.root,
        { write: (bytes, position) => write(fd, bytes, position) },
        (node, offset, into) => spools[node.spool]?.read(node.offset + offset, into),
        Buffer.from(request.uuid, 'hex'),
      );
      ftruncateSync(fd, result.bytes);
      fchmodSync(fd, 0o444);
      fdatasyncSync(fd);
      return { ...result, unpackedBytes };
    } finally {
      closeSync(fd);
    }
  } finally {
    for (const spool of spools) spool.close();
  }
}

/** Feeds one layer's archive to `reader` and checks its digest. Returns its size. */
async function unpackLayer(
  layer: DiskLayer,
  reader: { push(chunk: Buffer): void; end(): void },
  budget: number,
  limits: DiskLimits,
): Promise<number> {
  const hash = hashFor(layer.diffId);
  const byRatio = Math.max(limits.ratioFreeBytes, layer.bytes * limits.ratioMax);
  let bytes = 0;
  for await (const chunk of decompressed(layer)) {
    bytes += chunk.length;
    if (bytes > budget) {
      throw new ImageError(
        'TooLarge',
        `image is larger than ${limits.unpackedBytesMax} bytes when it is unpacked`,
      );
    }
    if (bytes > byRatio) {
      throw new ImageError(
        'TooLarge',
        `layer ${layer.digest} grows more than ${limits.ratioMax} times when it is unpacked`,
      );
    }
    hash.update(chunk);
    reader.push(chunk);
  }
  reader.end();
  const actual = `${layer.diffId.split(':', 1)[0]}:${hash.digest('hex')}`;
  if (actual !== layer.diffId) {
    throw new ImageError(
      'DigestMismatch',
      `layer ${layer.digest} unpacks to ${actual}, but the image says ${layer.diffId}`,
    );
  }
  return bytes;
}

/** What a blob is told by its first bytes: media types in the wild are not reliable. */
const COMPRESSIONS: { magic: Buffer; open: () => Transform }[] = [
  { magic: Buffer.from([0x1f, 0x8b]), open: () => createGunzip({ chunkSize: READ_BYTES }) },
  {
    magic: Buffer.from([0x28, 0xb5, 0x2f, 0xfd]),
    open: () => createZstdDecompress({ chunkSize: READ_BYTES }),
  },
];

async function* decompressed(layer: DiskLayer): AsyncGenerator<Buffer> {
  const start = Buffer.alloc(4);
  const fd = openSync(layer.path, 'r');
  try {
    readSync(fd, start, 0, start.length, 0);
  } finally {
    closeSync(fd);
  }
  const compression = COMPRESSIONS.find(({ magic }) =>
    start.subarray(0, magic.length).equals(magic),
  );
  const source = createReadStream(layer.path, { highWaterMark: READ_BYTES });
  if (compression === undefined) {
    yield* source;
    return;
  }
  const stream = compression.open();
  source.on('error', (error) => stream.destroy(error));
  source.pipe(stream);
  try {
    yield* stream;
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? '';
    if (!code.startsWith('Z')) throw error;
    const cause = (error as Error).message;
    throw new ImageError('Malformed', `layer ${layer.digest} cannot be decompressed: ${cause}`);
  } finally {
    stream.destroy();
    source.destroy();
    if (!source.closed) await once(source, 'close');
  }
}

function openSpool(path: string, write: Write): OpenSpool {
  const fd = openSync(path, 'wx+', 0o600);
  // Without a name nothing has to be cleaned up, whatever happens.
  unlinkSync(path);
  const buffer = Buffer.allocUnsafe(SPOOL_BUFFER_BYTES);
  let fill = 0;
  let written = 0;
  const flush = (): void => {
    write(fd, buffer.subarray(0, fill), written);
    written += fill;
    fill = 0;
  };
  return {
    get length() {
      return written + fill;
    },
    append(chunk) {
      if (fill + chunk.length > buffer.length) flush();
      if (chunk.length > buffer.length) {
        write(fd, chunk, written);
        written += chunk.length;
        return;
      }
      chunk.copy(buffer, fill);
      fill += chunk.length;
    },
    flush,
    read(offset, into) {
      for (let done = 0; done < into.length;) {
        const count = readSync(fd, into, done, into.length - done, offset + done);
        assert(count > 0, 'disk: the spool ends before the content does');
        done += count;
      }
    },
    close: () => closeSync(fd),
  };
}

type Write = (fd: number, bytes: Buffer, position: number) => void;

/** Writes all of it, and sees to it that the file system is not filled to the brim. */
function createWriter(request: DiskRequest): Write {
  let unchecked = 0;
  return (fd, bytes, position) => {
    unchecked += bytes.length;
    if (unchecked >= SPACE_CHECK_BYTES) {
      unchecked = 0;
      const info = statfsSync(request.spoolDirectory);
      if (info.bavail * info.bsize < request.limits.freeBytesMin + SPACE_CHECK_BYTES) {
        throw new ImageError('NoSpace', 'no space left on the device for images', {
          transient: true,
        });
      }
    }
    for (let done = 0; done < bytes.length;) {
      done += writeSync(fd, bytes, done, bytes.length - done, position + done);
    }
  };
}
