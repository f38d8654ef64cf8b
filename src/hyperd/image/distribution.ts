import type { Clock } from '../../base/clock.ts';
import type { Log } from '../../base/log.ts';
import type { Random } from '../../base/random.ts';
import { createHash } from 'node:crypto';
import type { ContentStore, Ingest } from './content.ts';
import { digestAlgorithm } from './digest.ts';
import type { Digest } from './digest.ts';
import { createHttpClient, HttpError, readAll } from './http.ts';
import { MANIFEST_ACCEPT, MANIFEST_BYTES_MAX } from './manifest.ts';
import type { Descriptor } from './manifest.ts';
import type { Reference } from './reference.ts';
import { endpointsOf } from './registries.ts';
import type { Endpoint, RegistriesConfig } from './registries.ts';
import { retrying } from './retry.ts';
import { createSession, expectStatus } from './session.ts';
import type { Session, SessionContext } from './session.ts';
import { ImageError } from './store.ts';
import type { RegistryCredential } from './store.ts';

/**
 * The pull side of the OCI distribution protocol, and who to speak to for the other one.
 */
export interface DistributionClient {
  /**
   * Where to try to get an image, in order: each endpoint of its registry with each credential
   * that may be sent there.
   */
  sources(reference: Reference, credentials: RegistryCredential[]): Promise<Source[]>;
  /** Where an image may be sent, in order: its registry with each credential, and no mirror. */
  targets(reference: Reference, credentials: RegistryCredential[]): Promise<Target[]>;
  close(): void;
}

/** One repository that is written to. */
export interface Target {
  session: Session;
  /** Of the repository: `https://registry/v2/name`. */
  base: URL;
}

/** One repository, at one endpoint, with one credential or none. */
export interface Source {
  /** Tells endpoints and repositories apart; hexadecimal. */
  id: string;
  endpoint: Endpoint;
  /**
   * The pull's own credential, where the registry has asked for it; undefined where it gave to
   * anybody, or to the node. Known after the first fetch.
   */
  readonly holder: RegistryCredential | undefined;
  /** @throws ImageError */
  fetchManifest(tagOrDigest: string, signal?: AbortSignal): Promise<FetchedManifest>;
  /**
   * Brings a blob into the content store. Goes on where an earlier attempt stopped.
   * @throws ImageError
   */
  fetchBlob(
    blob: Descriptor,
    content: ContentStore,
    signal?: AbortSignal,
    onBytes?: (doneBytes: number) => void,
  ): Promise<void>;
}

export interface FetchedManifest {
  digest: Digest;
  contentType: string;
  bytes: Buffer;
}

export interface DistributionOptions {
  /** Asked before each pull. */
  config: () => Promise<RegistriesConfig>;
  clock: Clock;
  random: Random;
  log: Log;
}

export function createDistributionClient(options: DistributionOptions): DistributionClient {
  const http = createHttpClient({ clock: options.clock });
  const tokens: SessionContext['tokens'] = new Map();
  const open = async (): Promise<SessionContext> => {
    return { ...options, config: await options.config(), http, tokens };
  };
  return {
    async targets(reference, credentials) {
      const context = await open();
      const origins = endpointsOf(context.config, reference.registry);
      return origins
        .filter(({ isOrigin }) => isOrigin)
        .flatMap((endpoint) => {
          const own = endpoint.host?.credential;
          const candidates = own ? [...credentials, own] : credentials;
          const anonymous: (RegistryCredential | undefined)[] = [undefined];
          const base = new URL(endpoint.base);
          base.pathname = `${base.pathname}/${reference.repository}`;
          return (candidates.length > 0 ? candidates : anonymous).map((credential) => {
            const { repository } = reference;
            const session = createSession(context, endpoint, repository, credential, 'pull,push');
            return { session, base };
          });
        });
    },
    async sources(reference, credentials) {
      const context = await open();
      const { config } = context;
      return endpointsOf(config, reference.registry).flatMap((endpoint) => {
        const own = endpoint.host?.credential;
        // What a pod's secret holds is for the registry it names, and no mirror's business.
        const given = endpoint.isOrigin ? credentials : [];
        const candidates = own ? [...given, own] : given;
        const anonymous: (RegistryCredential | undefined)[] = [undefined];
        return (candidates.length > 0 ? candidates : anonymous).map((credential) =>
          createSource(context, endpoint, reference, credential, credential === own),
        );
      });
    },
    close: () => http.close(),
  };
}

function createSource(
  context: SessionContext,
  endpoint: Endpoint,
  reference: Reference,
  credential: RegistryCredential | undefined,
  isOfNode: boolean,
): Source {
  const session = createSession(context, endpoint, reference.repository, credential);
  const urlOf = (kind: 'manifests' | 'blobs', name: string): URL => {
    const url = new URL(endpoint.base);
    url.pathname = `${url.pathname}/${reference.repository}/${kind}/${name}`;
    // Mirrors of several registries tell them apart by this.
    if (!endpoint.isOrigin) url.searchParams.set('ns', reference.registry);
    return url;
  };
  const id = sourceId(endpoint.base, reference.repository);
  return {
    id,
    endpoint,
    get holder() {
      return session.hasUsedCredential && !isOfNode ? credential : undefined;
    },
    fetchManifest: (name, signal) =>
      retrying(context, signal, () =>
        fetchManifest(session, urlOf('manifests', name), name, reference, signal),
      ),
    async fetchBlob(blob, content, signal, onBytes) {
      const download = () =>
        downloadBlob(session, urlOf('blobs', blob.digest), id, { blob, content, onBytes }, signal);
      // What an earlier run left may be damaged: that deserves one more try, from the start.
      if ((await download()) === 'damaged') await download();
    },
  };
}

async function fetchManifest(
  session: Session,
  url: URL,
  name: string,
  reference: Reference,
  signal: AbortSignal | undefined,
): Promise<FetchedManifest> {
  const response = await session.get(url, { accept: MANIFEST_ACCEPT }, signal);
  const wanted = name.includes(':') ? name : undefined;
  const what = `${reference.registry}/${reference.repository}${wanted ? '@' : ':'}${name}`;
  await expectStatus(response, [200], what);
  const bytes = await readAll(response, MANIFEST_BYTES_MAX);
  if (bytes === undefined) {
    throw new ImageError('TooLarge', `manifest is larger than ${MANIFEST_BYTES_MAX} bytes`);
  }
  const algorithm = wanted === undefined ? 'sha256' : digestAlgorithm(wanted);
  const digest = `${algorithm}:${createHash(algorithm).update(bytes).digest('hex')}`;
  if (wanted !== undefined && digest !== wanted) {
    throw new ImageError('DigestMismatch', `manifest has the digest ${digest}, not ${wanted}`);
  }
  const contentType = (response.headers['content-type'] ?? '').split(';', 1)[0] as string;
  return { digest, contentType: contentType.trim(), bytes };
}

/** Tells endpoints and repositories apart. */
export function sourceId(base: URL, repository: string): string {
  return createHash('sha256').update(`${base.href} ${repository}`).digest('hex').slice(0, 32);
}

/** What arrives is kept apart by source, so that none can spoil what another has begun. */
export function ingestKey(digest: Digest, source: string): string {
  return `${digest.replace(':', '-')}-${source}`;
}

interface Download {
  blob: Descriptor;
  content: ContentStore;
  onBytes: ((doneBytes: number) => void) | undefined;
}

async function downloadBlob(
  session: Session,
  url: URL,
  source: string,
  { blob, content, onBytes }: Download,
  signal: AbortSignal | undefined,
): Promise<'done' | 'damaged'> {
  const ingest = await content.ingest(ingestKey(blob.digest, source));
  const resumed = ingest.offset > 0;
  try {
    if (ingest.offset > blob.size) await ingest.restart();
    while (ingest.offset < blob.size) {
      await retrying(session.context, signal, (progress) => {
        const onProgress = (bytes: number) => {
          progress(bytes);
          onBytes?.(ingest.offset);
        };
        return downloadOnce(session, url, blob, ingest, onProgress, signal);
      });
    }
  } catch (error) {
    await ingest.close();
    throw error;
  }
  try {
    await ingest.commit(blob.digest);
    return 'done';
  } catch (error) {
    if (resumed && error instanceof ImageError && error.reason === 'DigestMismatch')
      return 'damaged';
    throw error;
  }
}

/** Asks for what is missing of a blob and takes what comes. */
async function downloadOnce(
  session: Session,
  url: URL,
  blob: Descriptor,
  ingest: Ingest,
  progress: (bytes: number) => void,
  signal: AbortSignal | undefined,
): Promise<void> {
  const headers: Record<string, string> = { 'accept-encoding': 'identity' };
  if (ingest.offset > 0) headers['range'] = `bytes=${ingest.offset}-`;
  const response = await session.get(url, headers, signal);
  if (
    response.status === 416 ||
    (response.status === 206 && !startsAt(response.headers, ingest.offset))
  ) {
    response.destroy();
    await ingest.restart();
    throw new HttpError('the registry does not continue where the download stopped');
  }
  await expectStatus(response, [200, 206], `blob ${blob.digest}`);
  if (response.status === 200 && ingest.offset > 0) await ingest.restart();
  for await (const chunk of response.body) {
    if (ingest.offset + chunk.length > blob.size) {
      throw new ImageError(
        'DigestMismatch',
        `blob ${blob.digest} is larger than ${blob.size} bytes`,
      );
    }
    await ingest.write(chunk);
    progress(chunk.length);
  }
  if (ingest.offset < blob.size) {
    throw new HttpError(`the answer ended after ${ingest.offset} of ${blob.size} bytes`);
  }
}

function startsAt(headers: { 'content-range'?: string | undefined }, offset: number): boolean {
  return headers['content-range']?.startsWith(`bytes ${offset}-`) ?? false;
}
