import { createHash } from 'node:crypto';
import { mkdir, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { assert } from '../../base/assert.ts';
import { readFileIfExists, writeFileAtomic } from '../../base/files.ts';
import type { Digest } from '../image/digest.ts';
import { createLock } from '../image/locks.ts';
import { RegistryError } from './errors.ts';

/**
 * What the registry knows of its repositories: tags, manifests, and which blobs may be read
 * through which repository. One file each, replaced atomically.
 */
export interface Repository {
  name: string;
  tags: Map<string, Digest>;
  manifests: Record<Digest, ManifestRecord>;
  /** Blobs that were pushed or mounted here, with the time. */
  blobs: Record<Digest, { linkedAtMs: number }>;
}

export interface ManifestRecord {
  mediaType: string;
  size: number;
  /** Blobs and manifests it is made of. */
  references: Digest[];
  /** What it is attached to, for the referrers API. */
  subject?: Digest;
  artifactType?: string;
  annotations?: Record<string, string>;
}

export interface Repositories {
  get(name: string): Repository | undefined;
  /** In order of their names. */
  names(): string[];
  all(): Repository[];
  /**
   * Changes a repository, made where it is missing, durably before it is seen. One that is left
   * empty is removed.
   * @throws RegistryError DENIED over the limits
   */
  change<T>(name: string, edit: (repository: Repository) => T): Promise<T>;
}

const REPOSITORIES_MAX = 10_000;
/** Of one repository: tags, manifests, and blobs, each. */
const REPOSITORY_ITEMS_MAX = 20_000;

export async function openRepositories(directory: string): Promise<Repositories> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const byName = new Map<string, Repository>();
  for (const file of await readdir(directory)) {
    if (!file.endsWith('.json')) {
      await rm(join(directory, file), { force: true });
      continue;
    }
    const repository = decode((await readFileIfExists(join(directory, file))) ?? '');
    byName.set(repository.name, repository);
  }
  // Names may be longer than a file's, and contain slashes.
  const fileOf = (name: string) =>
    join(directory, `${createHash('sha256').update(name).digest('hex')}.json`);
  const lock = createLock();
  return {
    get: (name) => byName.get(name),
    names: () => [...byName.keys()].sort(),
    all: () => [...byName.values()],
    async change(name, edit) {
      const release = await lock(name);
      try {
        const current = byName.get(name);
        if (!current && byName.size >= REPOSITORIES_MAX) {
          throw new RegistryError(
            'DENIED',
            `the registry has ${REPOSITORIES_MAX} repositories already`,
          );
        }
        const next = structuredClone(
          current ?? { name, tags: new Map(), manifests: {}, blobs: {} },
        );
        const result = edit(next);
        assert(next.name === name, 'registry: a repository keeps its name');
        checkLimits(next);
        if (isEmpty(next)) {
          await rm(fileOf(name), { force: true });
          byName.delete(name);
        } else {
          await writeFileAtomic(fileOf(name), encode(next), { sync: true });
          byName.set(name, next);
        }
        return result;
      } finally {
        release();
      }
    },
  };
}

/** Tags are any words, also those that objects have a meaning for. */
function encode(repository: Repository): string {
  return JSON.stringify({ ...repository, tags: [...repository.tags] });
}

function decode(text: string): Repository {
  const stored = JSON.parse(text) as Omit<Repository, 'tags'> & { tags: [string, Digest][] };
  return { ...stored, tags: new Map(stored.tags) };
}

function checkLimits(repository: Repository): void {
  const counts = {
    tags: repository.tags.size,
    manifests: Object.keys(repository.manifests).length,
    blobs: Object.keys(repository.blobs).length,
  };
  for (const [what, count] of Object.entries(counts)) {
    if (count <= REPOSITORY_ITEMS_MAX) continue;
    throw new RegistryError('DENIED', `the repository has ${REPOSITORY_ITEMS_MAX} ${what} already`);
  }
}

function isEmpty(repository: Repository): boolean {
  return Object.keys(repository.manifests).length + Object.keys(repository.blobs).length === 0;
}
