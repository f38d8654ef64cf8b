import { createHash } from 'node:crypto';
import { chmod, mkdir, readdir, rm } from 'node:fs/promises';
import { homedir } from 'node:os';
import { isAbsolute, join } from 'node:path';
import { readFileIfExists, writeFileAtomic } from '../../base/files.ts';
import { UsageError } from '../errors.ts';

/** One login: who, on which server, for which tenant. Of this user account alone, mode 0600. */
export interface Profile {
  version: typeof PROFILE_VERSION;
  /** New with every login, so that a token of an earlier one is not taken for this one's. */
  id: string;
  name: string;
  /** Of the Kubernetes API: `https://host:port`, and the only CA that is trusted for it, PEM. */
  server: string;
  caCert: string;
  /** Of the identity service, with its version. */
  authUrl: string;
  /** PEM; absent: the CAs that Node comes with. */
  authCaCert?: string;
  user: { id: string; name: string; domain: string };
  scope: ProfileScope;
  /** Absent for operators. */
  tenant?: string;
  /** With this a new token is got when the last one ends. */
  credential?: StoredCredential;
  /** What login wrote into a kubeconfig. */
  kubeconfig: {
    path: string;
    context: string;
    /** The one before; it is the current one again after logging out. */
    previousContext?: string;
  };
}

export type ProfileScope =
  { kind: 'system' } | { kind: 'project'; id: string; name: string; domain: string };

/** An application credential. */
export interface StoredCredential {
  id: string;
  secret: string;
  expiresAtMs?: number;
  /** Whether login made it, so that logout takes it away. */
  isOurs: boolean;
}

/** The token in use; beside the profile, because it changes while the profile does not. */
export interface StoredToken {
  /** Of the login that it belongs to. */
  profileId: string;
  value: string;
  /** By this machine's clock. */
  expiresAtMs: number;
  methods: string[];
}

export interface ProfileStore {
  read(name: string): Promise<Profile | undefined>;
  list(): Promise<Profile[]>;
  write(profile: Profile): Promise<void>;
  /** With its token. Absent is fine. */
  remove(name: string): Promise<void>;
  /** The token of this very login. */
  readToken(profile: Pick<Profile, 'name' | 'id'>): Promise<StoredToken | undefined>;
  /** Not when the profile is gone or another by now. */
  writeToken(profile: Pick<Profile, 'name' | 'id'>, token: StoredToken): Promise<void>;
  /** Notes that a process got a token; true where the same one has got the same before. */
  handOut(name: string, token: string, processId: number): Promise<boolean>;
  /** Path of the file that says that somebody renews the token. */
  lockPath(name: string): string;
}

const PROFILE_VERSION = 1;
const PROFILE_NAME = /^[A-Za-z0-9][A-Za-z0-9._@-]{0,199}$/;

/** `$XDG_CONFIG_HOME/hypernetes`, or the same in `~/.config`. */
export function configDirectory(env: NodeJS.ProcessEnv = process.env): string {
  const { XDG_CONFIG_HOME: given } = env;
  const base = given && isAbsolute(given) ? given : join(env['HOME'] || homedir(), '.config');
  return join(base, 'hypernetes');
}

/** Any text as the name of a profile. */
export function profileName(text: string): string {
  return text
    .replace(/[^A-Za-z0-9._@-]+/g, '-')
    .replace(/^[^A-Za-z0-9]+/, '')
    .slice(0, 200);
}

export function openProfiles(directory: string = configDirectory()): ProfileStore {
  const folder = join(directory, 'profiles');
  const pathOf = (name: string, suffix = '.json') => {
    if (PROFILE_NAME.test(name)) return join(folder, `${name}${suffix}`);
    throw new UsageError(`Cannot use the profile ${JSON.stringify(name)}: not a profile's name.`);
  };
  const tokenPath = (name: string) => pathOf(name, '.token');

  const ensureFolder = async () => {
    await mkdir(folder, { recursive: true, mode: 0o700 });
    for (const path of [directory, folder]) await chmod(path, 0o700);
  };

  const read = async (name: string): Promise<Profile | undefined> => {
    const path = pathOf(name);
    const profile = parse(await readFileIfExists(path), path) as Profile | undefined;
    if (!profile || profile.version === PROFILE_VERSION) return profile;
    throw new UsageError(
      `Cannot use "${path}": it is of another version of Hypernetes. Log in again.`,
    );
  };

  return {
    read,

    async list() {
      const files = await readdir(folder).catch(() => []);
      const names = files.filter((name) => name.endsWith('.json')).map((name) => name.slice(0, -5));
      const found = await Promise.all(names.filter((name) => PROFILE_NAME.test(name)).map(read));
      return found.filter((profile) => profile !== undefined);
    },

    async write(profile) {
      await ensureFolder();
      await writeFileAtomic(pathOf(profile.name), `${JSON.stringify(profile, null, 2)}\n`);
    },

    async remove(name) {
      for (const suffix of ['.json', '.token', '.handout']) {
        await rm(pathOf(name, suffix), { force: true });
      }
    },

    async readToken({ name, id }) {
      const path = tokenPath(name);
      const token = parse(await readFileIfExists(path), path) as StoredToken | undefined;
      return token?.profileId === id ? token : undefined;
    },

    async writeToken({ name, id }, token) {
      const path = tokenPath(name);
      await writeFileAtomic(path, `${JSON.stringify(token)}\n`);
      // Whoever logs out meanwhile has removed what was there.
      const now = await read(name);
      if (!now) await rm(path, { force: true });
      else if (now.id !== id) throw new UsageError('Somebody has logged in anew: try again.');
    },

    async handOut(name, token, processId) {
      const path = pathOf(name, '.handout');
      const note = `${processId} ${createHash('sha256').update(token).digest('hex')}\n`;
      if ((await readFileIfExists(path)) === note) return true;
      await writeFileAtomic(path, note);
      return false;
    },

    lockPath: (name) => pathOf(name, '.lock'),
  };
}

function parse(text: string | undefined, path: string): unknown {
  if (text === undefined) return undefined;
  try {
    return JSON.parse(text) as unknown;
  } catch (error) {
    throw new UsageError(`Cannot read "${path}": ${(error as Error).message}. Log in again.`);
  }
}
