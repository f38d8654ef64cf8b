import type { Clock } from '../../base/clock.ts';
import { describeError } from '../../base/log.ts';
import type { Log } from '../../base/log.ts';
import type { Random } from '../../base/random.ts';
import type { Store } from '../../store/store.ts';
import { createAccounts } from './accounts.ts';
import type { Accounts } from './accounts.ts';
import { createAuthentication } from './authenticate.ts';
import type { Authenticated, Authentication } from './authenticate.ts';
import { bootstrap, recoverAdmin } from './bootstrap.ts';
import type { Bootstrapped, CatalogUrls } from './bootstrap.ts';
import { createCredentials } from './credentials.ts';
import type { Credentials } from './credentials.ts';
import { createDirectory, createSerial } from './directory.ts';
import type { Directory } from './directory.ts';
import { createGrants } from './grants.ts';
import type { Grants } from './grants.ts';
import { createLockout } from './lockout.ts';
import { createPasswordHasher } from './passwords.ts';
import type { HashParameters } from './passwords.ts';
import { IDENTITY_SETTINGS, LIMITS } from './settings.ts';
import type { IdentitySettings } from './settings.ts';
import { openState } from './state.ts';
import type { IdentityState } from './state.ts';
import { createTokenKeys } from './token-keys.ts';
import type { TokenKeys } from './token-keys.ts';

export interface EmbeddedIdentityOptions {
  store: Store;
  clock: Clock;
  random: Random;
  log: Log;
  /** @default IDENTITY_SETTINGS, for each that is not given */
  settings?: Partial<IdentitySettings>;
  /** Tests take cheaper ones. @default HASH_PARAMETERS */
  hashParameters?: HashParameters;
}

/** The embedded identity service: its data, rules and tokens, without HTTP. */
export interface EmbeddedIdentity extends Authentication {
  readonly state: IdentityState;
  readonly settings: IdentitySettings;
  readonly clock: Clock;
  readonly random: Random;
  readonly directory: Directory;
  readonly accounts: Accounts;
  readonly grants: Grants;
  readonly credentials: Credentials;
  readonly keys: TokenKeys;
  /** Completes what a new cluster needs; see `bootstrap.ts`. Call it once at every start. */
  bootstrap(urls: CatalogUrls): Promise<Bootstrapped>;
  /** For an operator without a password; see `bootstrap.ts`. */
  recoverAdmin(): Promise<{ adminPassword: string }>;
  /** Ends a token at once, and those that were made from it. */
  revokeToken(token: Authenticated): Promise<void>;
  /** Rotates keys and forgets what has expired. Called by itself now and then. */
  maintain(): Promise<void>;
  close(): Promise<void>;
}

const MAINTENANCE_INTERVAL_MS = 10 * 60_000;

/** Opens the service on a store; all that it keeps is there. */
export async function openEmbeddedIdentity(
  options: EmbeddedIdentityOptions,
): Promise<EmbeddedIdentity> {
  const { store, clock, random, log } = options;
  const settings = { ...IDENTITY_SETTINGS, ...options.settings };
  const closing = new AbortController();
  const state = openState({ store, clock, log, signal: closing.signal });
  const { tokenLifetimeMs, keyRotationMs: rotationMs } = settings;
  const keys = createTokenKeys({ state, clock, random, rotationMs, tokenLifetimeMs });
  await keys.ensure();
  const { hashParameters: parameters } = options;
  const hasher = createPasswordHasher({ random, ...(parameters && { parameters }) });
  const lockout = createLockout(state, clock, settings.lockout);
  const parts = { state, clock, random, settings, hasher, keys, lockout };
  const authentication = createAuthentication(parts);
  const serial = createSerial();
  const directory = createDirectory({ state, random, serial });
  const policy = settings.passwords;
  const accounts = createAccounts({ ...parts, serial, directory, policy, authentication });
  const grants = createGrants({ state, random, serial });
  const credentials = createCredentials({ ...parts, serial });

  const maintain = async () => {
    await keys.maintain();
    await lockout.maintain();
    for (const { id, expiresAtMs } of state.tables.revocations.all()) {
      if (expiresAtMs <= clock.nowMs()) await state.tables.revocations.remove(id);
    }
  };
  const schedule = () =>
    clock.after(MAINTENANCE_INTERVAL_MS, () => {
      void maintain()
        .catch((error: unknown) => {
          if (closing.signal.aborted) return;
          log.warn('cannot tidy identity records', { error: describeError(error) });
        })
        .finally(() => {
          if (!closing.signal.aborted) timer = schedule();
        });
    });
  let timer = schedule();

  return {
    ...authentication,
    state,
    settings,
    clock,
    random,
    directory,
    accounts,
    grants,
    credentials,
    keys,
    bootstrap: (urls) => bootstrap({ state, random, directory, accounts, grants }, urls),
    recoverAdmin: () => recoverAdmin({ state, random, directory, accounts, grants }),
    async revokeToken({ claims }) {
      const { auditId: id, expiresAtMs, userId } = claims;
      const { users, revocations } = state.tables;
      const others = state.revocationsOfUser(userId);
      if (others.length < LIMITS.revocationsPerUser) {
        await revocations.create({ id, expiresAtMs, userId });
        return;
      }
      // A larger epoch says as much as any number of them.
      await users.update(userId, (user) => ({ ...user, epoch: user.epoch + 1 }));
      for (const other of others) await revocations.remove(other.id);
    },
    maintain,
    close() {
      closing.abort();
      timer.cancel();
      return Promise.resolve();
    },
  };
}
