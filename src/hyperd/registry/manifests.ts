import type { Clock } from '../../base/clock.ts';
import type { ContentStore } from '../image/content.ts';
import { isDigest, sha256 } from '../image/digest.ts';
import type { Digest } from '../image/digest.ts';
import { isTag } from '../image/reference.ts';
import { RegistryError } from './errors.ts';
import { answer, answerBytes, answerJson, readWholeBody } from './exchange.ts';
import type { Exchange } from './exchange.ts';
import type { ManifestRecord, Repositories, Repository } from './repositories.ts';

export interface ManifestRoutes {
  /** GET and HEAD, by tag or digest. */
  read(exchange: Exchange): Promise<void>;
  write(exchange: Exchange): Promise<void>;
  remove(exchange: Exchange): Promise<void>;
  tags(exchange: Exchange): void;
  catalog(exchange: Exchange, mayRead: (repository: string) => boolean): void;
  referrers(exchange: Exchange): void;
}

const MANIFEST_BYTES_MAX = 4 << 20;
const MANIFEST_REFERENCES_MAX = 2000;
const PAGE_ITEMS_MAX = 1000;
const INDEX_TYPE = 'application/vnd.oci.image.index.v1+json';

export function createManifestRoutes(
  content: ContentStore,
  repositories: Repositories,
  clock: Clock,
): ManifestRoutes {
  const find = (exchange: Exchange): { digest: Digest; record: ManifestRecord } => {
    const repository = repositories.get(exchange.repository);
    const digest = isDigest(exchange.name) ? exchange.name : repository?.tags.get(exchange.name);
    const record = digest === undefined ? undefined : repository?.manifests[digest];
    if (digest !== undefined && record) return { digest, record };
    throw new RegistryError(
      'MANIFEST_UNKNOWN',
      `manifest ${exchange.name} is unknown to the repository`,
    );
  };
  return {
    async read(exchange) {
      const { digest, record } = find(exchange);
      answerBytes(exchange, await content.read(digest, MANIFEST_BYTES_MAX), {
        'content-type': record.mediaType,
        'docker-content-digest': digest,
        etag: `"${digest}"`,
      });
    },
    async write(exchange) {
      const { name } = exchange;
      if (!isDigest(name) && !isTag(name))
        throw new RegistryError('TAG_INVALID', 'the tag is not valid');
      const bytes = await readWholeBody(exchange.request, clock, MANIFEST_BYTES_MAX);
      const digest = sha256(bytes);
      if (isDigest(name) && name !== digest) {
        throw new RegistryError('DIGEST_INVALID', `the manifest has the digest ${digest}`);
      }
      const record = parseRecord(bytes, exchange.request.headers['content-type']);
      checkReferences(repositories.get(exchange.repository), record);
      await content.put(bytes);
      await repositories.change(exchange.repository, (repository) => {
        // Once more, now that nobody can remove what was found.
        checkReferences(repository, record);
        repository.manifests[digest] = record;
        if (!isDigest(name)) repository.tags.set(name, digest);
      });
      const subject: Record<string, string> = record.subject
        ? { 'oci-subject': record.subject }
        : {};
      answer(exchange, 201, {
        location: `/v2/${exchange.repository}/manifests/${digest}`,
        'docker-content-digest': digest,
        ...subject,
      });
    },
    async remove(exchange) {
      find(exchange);
      await repositories.change(exchange.repository, (repository) =>
        removeManifest(repository, exchange.name),
      );
      answer(exchange, 202);
    },
    tags(exchange) {
      const repository = repositories.get(exchange.repository);
      if (!repository) throw new RegistryError('NAME_UNKNOWN', 'the repository is unknown');
      const page = paginate(exchange, [...repository.tags.keys()].sort());
      answerJson(exchange, { name: exchange.repository, tags: page.items }, page.headers);
    },
    catalog(exchange, mayRead) {
      const page = paginate(exchange, repositories.names().filter(mayRead));
      answerJson(exchange, { repositories: page.items }, page.headers);
    },
    referrers(exchange) {
      const { name } = exchange;
      if (!isDigest(name)) throw new RegistryError('DIGEST_INVALID', 'the digest is not valid');
      const wanted = exchange.url.searchParams.get('artifactType');
      const manifests = referrersOf(repositories.get(exchange.repository), name).filter(
        ({ artifactType }) => wanted === null || artifactType === wanted,
      );
      answerJson(
        exchange,
        { schemaVersion: 2, mediaType: INDEX_TYPE, manifests },
        {
          'content-type': INDEX_TYPE,
          ...(wanted === null ? {} : { 'oci-filters-applied': 'artifactType' }),
        },
      );
    },
  };
}

function referrersOf(repository: Repository | undefined, subject: Digest) {
  return Object.entries(repository?.manifests ?? {})
    .filter(([, record]) => record.subject === subject)
    .map(([digest, { mediaType, size, artifactType, annotations }]) => ({
      mediaType,
      digest,
      size,
      ...(artifactType === undefined ? {} : { artifactType }),
      ...(annotations === undefined ? {} : { annotations }),
    }));
}

/** By tag only the tag goes, by digest the manifest with all its tags. */
function removeManifest(repository: Repository, name: string): void {
  if (!isDigest(name)) {
    repository.tags.delete(name);
    return;
  }
  delete repository.manifests[name];
  for (const [tag, digest] of repository.tags) {
    if (digest === name) repository.tags.delete(tag);
  }
}

function checkReferences(repository: Repository | undefined, record: ManifestRecord): void {
  const missing = record.references.find(
    (digest) => !repository?.blobs[digest] && !repository?.manifests[digest],
  );
  if (missing === undefined) return;
  throw new RegistryError('MANIFEST_BLOB_UNKNOWN', `${missing} is unknown to the repository`);
}

function parseRecord(bytes: Buffer, contentType: string | undefined): ManifestRecord {
  const invalid = (message: string) =>
    new RegistryError('MANIFEST_INVALID', `the manifest ${message}`);
  let json: Record<string, unknown>;
  try {
    json = JSON.parse(bytes.toString('utf8')) as Record<string, unknown>;
  } catch {
    throw invalid('is not JSON');
  }
  if (typeof json !== 'object' || json === null) throw invalid('is not an object');
  if (json['schemaVersion'] !== 2) throw invalid('has no "schemaVersion" 2');
  const digestOf = (value: unknown): Digest => {
    const digest = (value as { digest?: unknown } | null)?.digest;
    if (!isDigest(digest)) throw invalid('has a descriptor without a valid digest');
    return digest;
  };
  const lists = [json['layers'], json['manifests']].filter(Array.isArray).flat() as unknown[];
  if (lists.length > MANIFEST_REFERENCES_MAX) throw invalid('has too many parts');
  const parts = json['config'] === undefined ? lists : [json['config'], ...lists];
  const given = typeof json['mediaType'] === 'string' ? json['mediaType'] : contentType;
  const mediaType = (given ?? '').split(';', 1)[0]?.trim() ?? '';
  if (!/^[\x21-\x7e]{1,255}$/.test(mediaType)) throw invalid('has no media type');
  const config = json['config'] as { mediaType?: unknown } | undefined;
  const artifactType = json['artifactType'] ?? config?.mediaType;
  const { annotations, subject } = json;
  return {
    mediaType,
    size: bytes.length,
    references: [...new Set(parts.filter((part) => !isElsewhere(part)).map(digestOf))],
    ...(subject === undefined || subject === null ? {} : { subject: digestOf(subject) }),
    ...(typeof artifactType === 'string' && subject ? { artifactType } : {}),
    ...(isAnnotations(annotations) && subject ? { annotations } : {}),
  };
}

/** Layers that may only be had from their maker are not in the registry. */
function isElsewhere(part: unknown): boolean {
  const urls = (part as { urls?: unknown } | null)?.urls;
  return Array.isArray(urls) && urls.length > 0;
}

function isAnnotations(value: unknown): value is Record<string, string> {
  if (typeof value !== 'object' || value === null) return false;
  return Object.values(value).every((item) => typeof item === 'string');
}

function paginate(
  exchange: Exchange,
  all: string[],
): { items: string[]; headers: Record<string, string> } {
  const { searchParams, pathname } = exchange.url;
  const n = searchParams.get('n');
  if (n !== null && !/^[0-9]{1,9}$/.test(n)) {
    throw new RegistryError('PAGINATION_NUMBER_INVALID', 'n is not a number');
  }
  const count = Math.min(n === null ? PAGE_ITEMS_MAX : Number(n), PAGE_ITEMS_MAX);
  const last = searchParams.get('last');
  const rest = last === null ? all : all.filter((item) => item > last);
  const items = rest.slice(0, count);
  if (items.length === rest.length || items.length === 0) return { items, headers: {} };
  const next = new URLSearchParams({ n: String(count), last: items[items.length - 1] as string });
  return { items, headers: { link: `<${pathname}?${next}>; rel="next"` } };
}
