import type { Clock } from '../../base/clock.ts';
import type { Random } from '../../base/random.ts';
import type { ContentStore } from '../image/content.ts';
import { isDigest } from '../image/digest.ts';
import type { Digest } from '../image/digest.ts';
import { ImageError } from '../image/store.ts';
import { isRepository } from '../image/reference.ts';
import { RegistryError } from './errors.ts';
import { answer, readBody } from './exchange.ts';
import type { Exchange } from './exchange.ts';
import type { Repositories } from './repositories.ts';
import { createUploadSessions } from './upload-sessions.ts';
import type { Upload, UploadLimits } from './upload-sessions.ts';

/** Uploads of blobs: at once, or in pieces that each say where they belong. */
export interface UploadRoutes {
  /** POST: begins an upload, does a whole one, or mounts a blob of another repository. */
  begin(exchange: Exchange, mayRead: (repository: string) => boolean): Promise<void>;
  /** GET: how far it is. */
  status(exchange: Exchange): Promise<void>;
  /** PATCH: the next piece. */
  append(exchange: Exchange): Promise<void>;
  /** PUT: the last piece, or none, and the digest of all. */
  finish(exchange: Exchange): Promise<void>;
  /** DELETE */
  cancel(exchange: Exchange): Promise<void>;
  close(): Promise<void>;
}

interface UploadOptions {
  content: ContentStore;
  repositories: Repositories;
  limits: UploadLimits;
  clock: Clock;
  random: Random;
}

export function createUploadRoutes(options: UploadOptions): UploadRoutes {
  const { content, repositories, limits, clock } = options;
  const sessions = createUploadSessions(options);
  const receive = async (exchange: Exchange, upload: Upload): Promise<void> => {
    checkContentRange(exchange, upload);
    for await (const chunk of readBody(exchange.request, clock)) {
      if (upload.ingest.offset + chunk.length > limits.blobBytesMax) {
        await sessions.discard(upload);
        throw new RegistryError(
          'SIZE_INVALID',
          `the blob is larger than ${limits.blobBytesMax} bytes`,
        );
      }
      try {
        await upload.ingest.write(chunk);
      } catch (error) {
        await sessions.discard(upload);
        throw error;
      }
    }
  };
  const commit = async (exchange: Exchange, upload: Upload, digest: Digest): Promise<void> => {
    sessions.forget(upload);
    try {
      await upload.ingest.commit(digest);
    } catch (error) {
      if (!(error instanceof ImageError) || error.reason !== 'DigestMismatch') throw error;
      throw new RegistryError('DIGEST_INVALID', error.message);
    }
    await link(repositories, exchange.repository, digest, clock);
    answerCreated(exchange, digest);
  };

  return {
    async begin(exchange, mayRead) {
      const mount = exchange.url.searchParams.get('mount');
      const from = exchange.url.searchParams.get('from') ?? '';
      if (mount !== null && isDigest(mount) && isRepository(from) && mayRead(from)) {
        if (repositories.get(from)?.blobs[mount] && (await content.size(mount)) !== undefined) {
          await link(repositories, exchange.repository, mount, clock);
          answerCreated(exchange, mount);
          return;
        }
      }
      const digest = exchange.url.searchParams.get('digest');
      if (digest !== null) checkDigest(digest);
      const upload = await sessions.create(exchange.repository);
      exchange.name = upload.id;
      if (digest === null) {
        answerProgress(exchange, upload, 202);
        return;
      }
      await sessions.exclusively(exchange, async () => {
        try {
          await receive(exchange, upload);
        } catch (error) {
          await sessions.discard(upload);
          throw error;
        }
        await commit(exchange, upload, digest);
      });
    },
    async status(exchange) {
      await sessions.exclusively(exchange, async (upload) => answerProgress(exchange, upload, 204));
    },
    async append(exchange) {
      await sessions.exclusively(exchange, async (upload) => {
        await receive(exchange, upload);
        answerProgress(exchange, upload, 202);
      });
    },
    async finish(exchange) {
      const digest = checkDigest(exchange.url.searchParams.get('digest') ?? '');
      await sessions.exclusively(exchange, async (upload) => {
        await receive(exchange, upload);
        await commit(exchange, upload, digest);
      });
    },
    async cancel(exchange) {
      await sessions.exclusively(exchange, sessions.discard);
      answer(exchange, 204);
    },
    close: () => sessions.close(),
  };
}

function checkDigest(text: string): Digest {
  if (!isDigest(text))
    throw new RegistryError('DIGEST_INVALID', 'the digest is missing or not valid');
  return text;
}

/** A piece that says where it belongs has to continue what is there. */
function checkContentRange(exchange: Exchange, upload: Upload): void {
  const header = exchange.request.headers['content-range'];
  if (header === undefined) return;
  const match = /^(?:bytes )?([0-9]{1,15})-([0-9]{1,15})(?:\/[0-9*]+)?$/.exec(header);
  if (match && Number(match[1]) === upload.ingest.offset) return;
  throw new RegistryError('RANGE_INVALID', `the upload continues at ${upload.ingest.offset}`, {
    range: progressRange(upload),
    location: uploadLocation(exchange.repository, upload),
  });
}

/** Inclusive, so that nothing and one byte look alike: the form that clients expect. */
function progressRange(upload: Upload): string {
  return `0-${Math.max(0, upload.ingest.offset - 1)}`;
}

function uploadLocation(repository: string, upload: Upload): string {
  return `/v2/${repository}/blobs/uploads/${upload.id}`;
}

function answerProgress(exchange: Exchange, upload: Upload, status: number): void {
  answer(exchange, status, {
    location: uploadLocation(exchange.repository, upload),
    range: progressRange(upload),
    'docker-upload-uuid': upload.id,
  });
}

function answerCreated(exchange: Exchange, digest: Digest): void {
  answer(exchange, 201, {
    location: `/v2/${exchange.repository}/blobs/${digest}`,
    'docker-content-digest': digest,
  });
}

async function link(
  repositories: Repositories,
  name: string,
  digest: Digest,
  clock: Clock,
): Promise<void> {
  await repositories.change(name, (repository) => {
    repository.blobs[digest] = { linkedAtMs: clock.nowMs() };
  });
}
