import { readFileIfExists } from '../../base/files.ts';
import { join } from 'node:path';
import { systemRandom } from '../../base/random.ts';
import { UsageError } from '../errors.ts';
import { addLogin, changeKubeconfig, kubeconfigPath } from './kubeconfig-file.ts';
import type { LoginEntry } from './kubeconfig-file.ts';
import type { IssuedToken, Keystone } from './keystone.ts';
import { profileName } from './profiles.ts';
import type { Profile, ProfileStore, StoredCredential } from './profiles.ts';
import { makeCredential, removeCredential } from './remember.ts';
import { storedToken } from './renew.ts';
import type { Reviewed } from './reviewed.ts';

/** A login that the cluster has accepted, on its way to the disk. */
export interface Entry {
  server: string;
  caCert: string;
  authCaCert: string | undefined;
  token: IssuedToken;
  reviewed: Reviewed;
  /** Makes an application credential of this lifetime; absent: none. */
  rememberMs?: number | undefined;
  /** One that somebody brought. */
  credential?: StoredCredential | undefined;
  kubeconfig?: string | undefined;
  context?: string | undefined;
  namespace?: string | undefined;
  execVersion?: LoginEntry['execVersion'];
}

const PROGRAM = join(import.meta.dirname, '../../../hypernetes');
const DEFAULT_PORT = '6443';

/**
 * Stores a login and makes it kubectl's current context. Either all of it is there afterwards, or
 * nothing that is new.
 */
export async function enter(
  keystone: Keystone,
  profiles: ProfileStore,
  entry: Entry,
): Promise<Profile> {
  const path = await kubeconfigPath(entry.kubeconfig);
  const context = entry.context ?? contextName(entry);
  const name = profileName(context);
  if (name === '')
    throw new UsageError(`Cannot use the context "${context}": choose another name.`);
  const login: LoginEntry = {
    ...{ context, server: entry.server, caCert: entry.caCert, profile: name },
    command: PROGRAM,
    env: pluginEnvironment(),
    namespace: entry.namespace ?? entry.reviewed.tenant,
    execVersion: entry.execVersion,
  };
  // What cannot be written is found out before anything is made.
  const { previousContext } = addLogin(await readFileIfExists(path), login);
  const before = await profiles.read(name).catch(() => undefined);
  const credential =
    entry.rememberMs === undefined
      ? entry.credential
      : await makeCredential(keystone, entry.token, entry.rememberMs);
  const profile = describe(keystone, entry, { name, path, context, credential });
  const previous = previousContext ?? before?.kubeconfig.previousContext;
  if (previous) profile.kubeconfig.previousContext = previous;
  try {
    await profiles.write(profile);
    await profiles.writeToken(profile, storedToken(profile.id, entry.token));
    await changeKubeconfig(path, (text) => addLogin(text, login));
  } catch (error) {
    await (before ? profiles.write(before) : profiles.remove(name));
    await removeCredential(profile, entry.token, undefined).catch(() => {});
    throw error;
  }
  if (before) {
    // It would live on unseen; if it cannot be removed now, it ends by itself.
    const token = before.user.id === profile.user.id ? entry.token : undefined;
    await removeCredential(before, token, undefined).catch(() => {});
  }
  return profile;
}

function describe(
  keystone: Keystone,
  { server, caCert, authCaCert, token, reviewed }: Entry,
  made: {
    name: string;
    path: string;
    context: string;
    credential: StoredCredential | undefined;
  },
): Profile {
  const { user, scope } = token;
  if (scope.kind !== 'project' && scope.kind !== 'system') {
    throw new UsageError(`Cannot log in with a token for the ${scope.kind}: it needs a tenant.`);
  }
  const { name, path, context, credential } = made;
  return {
    ...{ version: 1, id: systemRandom.uuid(), name, server, caCert, authUrl: keystone.url },
    ...(authCaCert && { authCaCert }),
    user: { id: user.id, name: user.name, domain: user.domain.name },
    scope:
      scope.kind === 'system'
        ? { kind: 'system' }
        : {
            kind: 'project',
            id: scope.project.id,
            name: scope.project.name,
            domain: scope.project.domain.name,
          },
    ...(reviewed.tenant && { tenant: reviewed.tenant }),
    ...(credential && { credential }),
    kubeconfig: { path, context },
  };
}

/** `acme@10.0.0.1`; operators are of the `system`. */
export function contextName({ server, reviewed }: Pick<Entry, 'server' | 'reviewed'>): string {
  const { hostname, port } = new URL(server);
  const place = port && port !== DEFAULT_PORT ? `${hostname}-${port}` : hostname;
  return `${reviewed.tenant ?? 'system'}@${place.replace(/[[\]]/g, '').replaceAll(':', '-')}`;
}

/** What the plugin has to find when kubectl calls it. */
function pluginEnvironment(): Record<string, string> {
  const { XDG_CONFIG_HOME } = process.env;
  return {
    HYPERNETES_NODE: process.execPath,
    ...(XDG_CONFIG_HOME && { XDG_CONFIG_HOME }),
  };
}
