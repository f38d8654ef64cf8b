import { createReadStream } from 'node:fs';
import { pipeline } from 'node:stream/promises';
import type { ContentStore } from '../image/content.ts';
import { isDigest } from '../image/digest.ts';
import type { Digest } from '../image/digest.ts';
import { RegistryError } from './errors.ts';
import { answer } from './exchange.ts';
import type { Exchange } from './exchange.ts';
import type { Repositories } from './repositories.ts';

export interface BlobRoutes {
  /** GET and HEAD, whole or in part. */
  read(exchange: Exchange): Promise<void>;
  remove(exchange: Exchange): Promise<void>;
}

export function createBlobRoutes(content: ContentStore, repositories: Repositories): BlobRoutes {
  return {
    async read(exchange) {
      const digest = linkedBlob(repositories, exchange);
      const size = await content.size(digest);
      if (size === undefined) throw unknownBlob(digest);
      const range = parseRange(exchange.request.headers.range, size);
      const headers: Record<string, string> = {
        'content-type': 'application/octet-stream',
        'docker-content-digest': digest,
        'accept-ranges': 'bytes',
        etag: `"${digest}"`,
        'cache-control': 'max-age=31536000',
        'content-length': String(range ? range.end - range.start + 1 : size),
      };
      if (range) headers['content-range'] = `bytes ${range.start}-${range.end}/${size}`;
      exchange.response.writeHead(range ? 206 : 200, headers);
      if (exchange.method === 'HEAD' || size === 0) {
        exchange.response.end();
        return;
      }
      await pipeline(createReadStream(content.path(digest), range ?? {}), exchange.response);
    },
    async remove(exchange) {
      const digest = linkedBlob(repositories, exchange);
      await repositories.change(exchange.repository, (repository) => {
        const user = Object.entries(repository.manifests).find(([, { references }]) =>
          references.includes(digest),
        );
        if (user) throw new RegistryError('DENIED', `the blob is part of the manifest ${user[0]}`);
        delete repository.blobs[digest];
      });
      answer(exchange, 202);
    },
  };
}

/** A blob can be read only through repositories that it was pushed to. */
function linkedBlob(repositories: Repositories, exchange: Exchange): Digest {
  const { name } = exchange;
  if (!isDigest(name)) throw new RegistryError('DIGEST_INVALID', 'the digest is not valid');
  const repository = repositories.get(exchange.repository);
  if (!repository?.blobs[name]) throw unknownBlob(name);
  return name;
}

function unknownBlob(digest: Digest): RegistryError {
  return new RegistryError('BLOB_UNKNOWN', `blob ${digest} is unknown to the repository`);
}

/** A single range of bytes; what is not understood is answered with the whole. */
export function parseRange(
  header: string | undefined,
  size: number,
): { start: number; end: number } | undefined {
  const match = /^bytes=([0-9]{0,15})-([0-9]{0,15})$/.exec(header ?? '');
  if (!match || (match[1] === '' && match[2] === '')) return undefined;
  const isSuffix = match[1] === '';
  const start = isSuffix ? Math.max(0, size - Number(match[2])) : Number(match[1]);
  const end = isSuffix || match[2] === '' ? size - 1 : Math.min(size - 1, Number(match[2]));
  if (start >= size || end < start) {
    throw new RegistryError('RANGE_INVALID', `the blob has ${size} bytes`, {
      'content-range': `bytes */${size}`,
    });
  }
  return { start, end };
}
