import { createHash } from 'node:crypto';
import type { RegistryCredential } from './store.ts';

/**
 * Who may use an image that is on the node without asking its registry again. An image that some
 * registry gave only to a credential is for those who hold that credential; one that it gave to
 * anybody, or to the node itself, is for everyone. So a pod cannot run a private image because
 * another tenant's pod has pulled it.
 */
export interface ImageAccess {
  /** By `registry/repository`: the same image may be public here and private there. */
  [repository: string]: RepositoryAccess;
}

export interface RepositoryAccess {
  anyone: boolean;
  /** Hashes of the credentials that pulled it; see `credentialHash`. Newest last. */
  holders: string[];
}

/** The oldest gives way, and has to ask the registry again. */
const HOLDERS_MAX = 64;

/** Written to disk in place of the credential; the repository keeps equal ones apart. */
function credentialHash(repository: string, credential: RegistryCredential): string {
  const { username, password } = credential;
  return createHash('sha256')
    .update(JSON.stringify([repository, username, password]))
    .digest('hex');
}

/**
 * @param holder the credential that the registry asked for; undefined where it asked for none
 * @param repositories of which the image has a name; what is known of others is dropped
 */
export function grantAccess(
  access: ImageAccess,
  repository: string,
  holder: RegistryCredential | undefined,
  repositories: ReadonlySet<string>,
): ImageAccess {
  const kept = Object.entries(access).filter(([name]) => repositories.has(name));
  const before = access[repository] ?? { anyone: false, holders: [] };
  const hash = holder && credentialHash(repository, holder);
  const others = before.holders.filter((each) => each !== hash);
  const after = hash
    ? { anyone: before.anyone, holders: [...others, hash].slice(-HOLDERS_MAX) }
    : { anyone: true, holders: before.holders };
  return { ...Object.fromEntries(kept), [repository]: after };
}

/** @param repository undefined for an image that is named by its id: any of its repositories */
export function hasAccess(
  access: ImageAccess,
  repository: string | undefined,
  credentials: RegistryCredential[],
): boolean {
  return Object.entries(access).some(([name, { anyone, holders }]) => {
    if (repository !== undefined && name !== repository) return false;
    return anyone || credentials.some((each) => holders.includes(credentialHash(name, each)));
  });
}
