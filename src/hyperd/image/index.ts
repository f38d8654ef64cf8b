import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '../../base/clock.ts';
import type { Log } from '../../base/log.ts';
import { systemRandom } from '../../base/random.ts';
import type { Random } from '../../base/random.ts';
import { hasAccess } from './access.ts';
import { isOwner, openCatalog, OWNER_CHARS_MAX } from './catalog.ts';
import type { Catalog, ImageRecord } from './catalog.ts';
import { openContentStore, storageError } from './content.ts';
import { isDigest } from './digest.ts';
import type { Digest } from './digest.ts';
import { DISK_LIMITS } from './disk.ts';
import type { DiskLimits } from './disk.ts';
import { createDistributionClient } from './distribution.ts';
import { createLock, createSemaphore } from './locks.ts';
import { hostPlatform } from './manifest.ts';
import type { Platform } from './manifest.ts';
import { loadArchive } from './load.ts';
import { pullImage } from './pull.ts';
import type { PullContext } from './pull.ts';
import { pushImage } from './push.ts';
import { saveArchive } from './save.ts';
import { formatReference, parseReference, repositoryName } from './reference.ts';
import type { RegistriesConfig } from './registries.ts';
import { isOnlyUser, withUser } from './users.ts';
import { ImageError } from './store.ts';
import type { Image, ImageStore } from './store.ts';

export {
  emptyRegistriesConfig,
  loadRegistriesConfig,
  parseRegistriesConfig,
  withEmbeddedRegistry,
} from './registries.ts';

export interface ImageStoreOptions {
  /** Everything lies below it; made where it is missing. One store at a time. */
  directory: string;
  /** A function is asked before each pull; it returns the same objects while nothing changes. */
  registries: RegistriesConfig | (() => Promise<RegistriesConfig>);
  clock: Clock;
  log: Log;
  /** @default systemRandom */
  random?: Random;
  /** @default that of this machine */
  platform?: Platform;
  limits?: Partial<DiskLimits>;
}

/** The image store of a node, with what its daemon needs beside the contract. */
export interface NodeImageStore extends ImageStore {
  /**
   * Removes blobs that no image needs and that no pull will miss, and partial downloads that
   * nobody came back for. Returns the bytes of the blobs.
   */
  collectGarbage(): Promise<number>;
}

/** Of the whole node. */
const DOWNLOADS_MAX = 32;
const BUILDS_MAX = 2;
/** Pulls that are under way or wait. */
const PULLS_MAX = 256;
const MESSAGE_CHARS_MAX = 2000;
/** How long what an interrupted pull left is kept for the next one. */
const LEFTOVER_AGE_MAX_MS = 24 * 3600 * 1000;

export async function openImageStore(options: ImageStoreOptions): Promise<NodeImageStore> {
  const { directory, clock, log } = options;
  const random = options.random ?? systemRandom;
  const catalog = await openCatalog(directory, log);
  const spool = join(directory, 'spool');
  await rm(spool, { recursive: true, force: true });
  await mkdir(spool, { mode: 0o700 });
  const limits = { ...DISK_LIMITS, ...options.limits };
  const content = await openContentStore(directory, limits);
  const { registries } = options;
  const config = typeof registries === 'function' ? registries : () => Promise.resolve(registries);
  const client = createDistributionClient({ config, clock, random, log });
  const context: PullContext = {
    directory,
    catalog,
    content,
    client,
    platform: options.platform ?? hostPlatform(),
    limits,
    downloads: createSemaphore(DOWNLOADS_MAX),
    builds: createSemaphore(BUILDS_MAX),
    lock: createLock(),
    pinned: new Map(),
    clock,
    random,
    log,
  };
  const closing = new AbortController();
  const pulls = new Set<Promise<unknown>>();
  /** Waits for what is under way, and says of a failure what it was a failure to do. */
  const transfer = async <T>(work: Promise<T>, signal: AbortSignal, what: string): Promise<T> => {
    const settled = work.catch(() => {});
    pulls.add(settled);
    try {
      return await work;
    } catch (error) {
      signal.throwIfAborted();
      throw transferError(what, storageError(error));
    } finally {
      pulls.delete(settled);
    }
  };

  const store: NodeImageStore = {
    async pull(request, signal, tell) {
      const reference = parseReference(request.reference);
      if (pulls.size >= PULLS_MAX) {
        const full = new ImageError('Unreachable', `${PULLS_MAX} pulls are waiting already`);
        throw transferError(`pull image "${request.reference}"`, full);
      }
      const either = AbortSignal.any(signal ? [signal, closing.signal] : [closing.signal]);
      const pull = pullImage({ ...context, tell }, reference, request.credentials, either);
      return toImage(await transfer(pull, either, `pull image "${request.reference}"`));
    },
    async push(request, signal, tell) {
      const reference = parseReference(request.reference);
      const record = requireRecord(catalog, request.image ?? request.reference);
      const either = AbortSignal.any(signal ? [signal, closing.signal] : [closing.signal]);
      const { credentials } = request;
      const push = pushImage({ ...context, tell }, record, reference, credentials, either);
      await transfer(push, either, `push image "${request.reference}"`);
      return toImage(record);
    },
    async load(request, signal) {
      const either = AbortSignal.any(signal ? [signal, closing.signal] : [closing.signal]);
      for (const name of request.references) parseReference(name);
      const load = loadArchive(context, request, either, (blobs) => removeBlobs(context, blobs));
      return (await transfer(load, either, 'load images')).map(toImage);
    },
    async save(names, signal) {
      const records = names.map((name) => requireRecord(catalog, name));
      return saveArchive(context, records, signal);
    },
    get(reference) {
      const record = findRecord(catalog, reference);
      return record && toImage(record);
    },
    mayUse({ reference, credentials }) {
      const record = findRecord(catalog, reference);
      if (!record) return false;
      const isById = catalog.find(reference) ?? catalog.find(`sha256:${reference}`);
      const repository = isById ? undefined : repositoryName(parseReference(reference));
      return hasAccess(record.access, repository, credentials);
    },
    list: () => catalog.images().map(toImage),
    remove: (reference) => removeReference(context, reference),
    async acquire(imageId, owner, user) {
      if (!isOwner(owner)) {
        throw new RangeError(
          `Cannot use "${owner.slice(0, 200)}" as owner of an image: want 1 to ` +
            `${OWNER_CHARS_MAX} of letters, digits, ".", "_" and "-"`,
        );
      }
      // The same lock as `remove` takes: a disk is either pinned or gone.
      const unlock = await context.lock(`image ${imageId}`);
      try {
        const record = catalog.find(imageId);
        if (!record) throw new ImageError('NotFound', `image "${imageId}": not found`);
        const problem = await catalog.findDamage(record);
        if (problem !== undefined) {
          context.log.error('image is damaged: the next pull makes it anew', { imageId, problem });
          await catalog.forget(imageId);
          throw new ImageError(
            'NotFound',
            `image "${imageId}" is damaged, ${problem}: pull it again`,
          );
        }
        await catalog.addLease({ imageId, owner });
        const usedBy = user ? withUser(record.usedBy ?? [], user) : undefined;
        if (usedBy) await catalog.put({ ...record, usedBy });
        return catalog.diskPath(imageId);
      } finally {
        unlock();
      }
    },
    release: (imageId, owner) => catalog.removeLease({ imageId, owner }),
    leases: () => catalog.leases(),
    async forget(user) {
      for (const { id, usedBy } of catalog.images()) {
        if (usedBy?.includes(user)) await forgetUser(context, id, user);
      }
    },
    collectGarbage: () => collectGarbage(context),
    async close() {
      closing.abort(new Error('The image store is closed'));
      await Promise.all(pulls);
      client.close();
    },
  };
  await store.collectGarbage();
  return store;
}

/** Names the image as the user did, in the words that container runtimes use. */
function transferError(what: string, error: unknown): unknown {
  const text = `failed to ${what}: ${(error as Error).message}`;
  // Parts of it are a stranger's, and it ends up in terminals.
  const message = text.replace(/[\x00-\x1f\x7f-\x9f]/g, '?').slice(0, MESSAGE_CHARS_MAX);
  if (!(error instanceof ImageError)) return new Error(message, { cause: error });
  return new ImageError(error.reason, message, { transient: error.transient, cause: error.cause });
}

function toImage(record: ImageRecord): Image {
  const { id, digest, references, diskBytes, usedBy = [], config } = record;
  return structuredClone({ id, digest, references, diskBytes, usedBy, config });
}

/** @throws ImageError NotFound */
function requireRecord(catalog: Catalog, name: string): ImageRecord {
  const record = findRecord(catalog, name);
  if (!record) throw new ImageError('NotFound', `image "${name}": not found`);
  return record;
}

function findRecord(catalog: Catalog, text: string): ImageRecord | undefined {
  const byId = isDigest(text) ? text : `sha256:${text}`;
  const record = catalog.find(byId);
  if (record) return record;
  const wanted = canonical(text);
  return catalog
    .images()
    .find(({ references }) => wanted !== undefined && references.includes(wanted));
}

/** As it stands in `references`; undefined for what is no reference. */
function canonical(text: string): string | undefined {
  try {
    const reference = parseReference(text);
    return formatReference(reference.digest === '' ? reference : { ...reference, tag: '' });
  } catch {
    return undefined;
  }
}

async function forgetUser(context: PullContext, imageId: string, user: string): Promise<void> {
  const { catalog } = context;
  const unlock = await context.lock(`image ${imageId}`);
  try {
    const record = catalog.find(imageId);
    if (!record?.usedBy) return;
    const isLeased = catalog.leases().some((lease) => lease.imageId === imageId);
    if (isOnlyUser(record.usedBy, user) && !isLeased) {
      await removeRecord(context, record);
    } else {
      await catalog.put({ ...record, usedBy: record.usedBy.filter((one) => one !== user) });
    }
  } finally {
    unlock();
  }
}

async function removeRecord(context: PullContext, { id, layers }: ImageRecord): Promise<void> {
  await context.catalog.remove(id);
  await removeBlobs(context, new Set([id, ...layers]));
}

/**
 * Removes one name of an image, or with its id all of them. The last tag of a repository takes
 * the repository's digest along; an image without references is removed.
 */
async function removeReference(context: PullContext, text: string): Promise<void> {
  const { catalog } = context;
  const found = findRecord(catalog, text);
  if (!found) throw new ImageError('NotFound', `image "${text}": not found`);
  const release = await context.lock(`image ${found.id}`);
  try {
    const record = catalog.find(found.id);
    if (!record) return;
    const references = remainingReferences(record, text);
    if (references.length > 0) {
      await catalog.put({ ...record, references });
      return;
    }
    const users = catalog.leases().filter(({ imageId }) => imageId === record.id);
    if (users.length > 0) {
      const names = users
        .slice(0, 3)
        .map(({ owner }) => owner)
        .join(', ');
      throw new ImageError(
        'InUse',
        `image "${text}" is in use by ${users.length} containers: ${names}`,
      );
    }
    await removeRecord(context, record);
  } finally {
    release();
  }
}

function remainingReferences(record: ImageRecord, text: string): string[] {
  const removed = canonical(text);
  if (removed === undefined || !record.references.includes(removed)) return [];
  const rest = record.references.filter((reference) => reference !== removed);
  const repository = repositoryName(parseReference(removed));
  const isTagged = rest.some((reference) => reference.startsWith(`${repository}:`));
  return isTagged ? rest : rest.filter((reference) => !reference.startsWith(`${repository}@`));
}

async function removeBlobs(context: PullContext, candidates: ReadonlySet<Digest>): Promise<void> {
  const needed = neededBlobs(context);
  for (const digest of candidates) {
    if (!needed.has(digest)) await context.content.remove(digest);
  }
}

function neededBlobs(context: PullContext): Set<Digest> {
  // The configuration is for those who push or save the image.
  const kept = context.catalog.images().flatMap(({ id, layers }) => [id, ...layers]);
  return new Set([...kept, ...context.pinned.keys()]);
}

async function collectGarbage(context: PullContext): Promise<number> {
  const olderThanMs = context.clock.nowMs() - LEFTOVER_AGE_MAX_MS;
  await context.content.expireIngests(olderThanMs);
  let bytes = 0;
  for (const blob of await context.content.list()) {
    // Asked for each: a pull may begin to need a blob meanwhile.
    if (blob.storedAtMs >= olderThanMs || neededBlobs(context).has(blob.digest)) continue;
    await context.content.remove(blob.digest);
    bytes += blob.bytes;
  }
  return bytes;
}
