import type { Clock } from '../../base/clock.ts';
import { describeError } from '../../base/log.ts';
import { UsageError } from '../errors.ts';
import type { Terminal } from '../prompt.ts';
import { withLock } from './lock.ts';
import type { Profile, ProfileStore, StoredToken } from './profiles.ts';
import type { Renewal } from './renew.ts';

/** What stands between a profile and a token. */
export interface CredentialContext {
  profiles: ProfileStore;
  clock: Clock;
  /** Absent where nobody can be asked. */
  terminal?: Terminal | undefined;
  /** Gets a token by application credential or password. Loaded only when it is needed. */
  renew: Renewal;
  /** A token that the server does not accept any more, whatever is left of its life. */
  refused?: string | undefined;
}

/** A token that ends sooner is replaced; kubectl's requests then have time to be answered. */
const RENEW_BEFORE_MS = 60_000;
/** One login with a memory-hard hash on a busy server, and some more that wait for theirs. */
const LOCK_WAIT_MS = 20_000;
const LOCK_STALE_MS = 30_000;

/**
 * The profile's token, renewed when it is about to end. Any number of processes may ask at the same
 * time: one renews, the others take what it got.
 *
 * @throws UsageError that says how to log in again, when nothing can renew it
 */
export async function currentToken(
  profile: Profile,
  context: CredentialContext,
): Promise<StoredToken> {
  const { profiles, clock, terminal, renew, refused } = context;
  const usable = async () => {
    const token = await profiles.readToken(profile);
    if (!token || token.value === refused) return undefined;
    return token.expiresAtMs - clock.nowMs() > RENEW_BEFORE_MS ? token : undefined;
  };
  const stored = await usable();
  if (stored) return stored;
  const { credential } = profile;
  if (credential) {
    const lock = { clock, waitMs: LOCK_WAIT_MS, staleMs: LOCK_STALE_MS };
    return withLock(profiles.lockPath(profile.name), lock, async () => {
      const other = await usable();
      if (other) return other;
      try {
        const token = await renew(profile, { kind: 'credential', ...credential });
        await profiles.writeToken(profile, token);
        return token;
      } catch (error) {
        return lastResort(profile, context, error);
      }
    });
  }
  if (!terminal) return lastResort(profile, context, undefined);
  const { user } = profile;
  const who = `${user.name}@${user.domain}`;
  const password = await terminal.askSecret(`Password of ${who} for ${profile.server}: `);
  const token = await renew(profile, { kind: 'password', password });
  await profiles.writeToken(profile, token);
  return token;
}

/** What is left of the present token's life, or the reason why there is none. */
async function lastResort(
  profile: Profile,
  { profiles, clock, refused }: CredentialContext,
  error: unknown,
): Promise<StoredToken> {
  const token = await profiles.readToken(profile);
  const isLiving = token !== undefined && token.expiresAtMs > clock.nowMs();
  if (isLiving && token.value !== refused) return token;
  const again = `Log in again: hypernetes login --context ${profile.kubeconfig.context}`;
  const when = token ? ` at ${new Date(token.expiresAtMs).toISOString()}` : '';
  const ended = isLiving
    ? 'the server does not accept its token any more'
    : `its token expired${when}`;
  const why = error === undefined ? ended : describeError(error);
  throw new UsageError(`The login "${profile.name}" cannot be used: ${why}. ${again}`);
}

/** What an exec plugin of `client.authentication.k8s.io` answers with. */
export function execCredential(token: StoredToken, apiVersion: string): string {
  const status = {
    token: token.value,
    expirationTimestamp: `${new Date(token.expiresAtMs).toISOString().slice(0, 19)}Z`,
  };
  return `${JSON.stringify({ apiVersion, kind: 'ExecCredential', status })}\n`;
}

export interface ExecInfo {
  apiVersion: string;
  isInteractive: boolean;
}

const EXEC_VERSIONS = ['client.authentication.k8s.io/v1', 'client.authentication.k8s.io/v1beta1'];

/** @param text of KUBERNETES_EXEC_INFO; absent when a person calls the plugin by hand */
export function readExecInfo(text: string | undefined): ExecInfo {
  const [preferred = ''] = EXEC_VERSIONS;
  if (!text) return { apiVersion: preferred, isInteractive: true };
  let info: { apiVersion?: unknown; spec?: { interactive?: unknown } | null } | null;
  try {
    info = JSON.parse(text) as typeof info;
  } catch {
    throw new UsageError('Cannot read KUBERNETES_EXEC_INFO: it is not JSON.');
  }
  const apiVersion = EXEC_VERSIONS.find((version) => version === info?.apiVersion);
  if (!apiVersion) {
    throw new UsageError(
      `Cannot answer in ${JSON.stringify(info?.apiVersion)}: there are ${EXEC_VERSIONS.join(', ')}.`,
    );
  }
  return { apiVersion, isInteractive: info?.spec?.interactive === true };
}
