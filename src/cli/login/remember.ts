import { hostname } from 'node:os';
import { systemClock } from '../../base/clock.ts';
import { nameSuffix, systemRandom } from '../../base/random.ts';
import { fields, id as idOf } from '../../identity/keystone/parse.ts';
import { UsageError } from '../errors.ts';
import type { IssuedToken, Keystone } from './keystone.ts';
import { KeystoneRefusal } from './keystone.ts';
import type { Profile, StoredCredential } from './profiles.ts';
import { renewToken, withKeystone } from './renew.ts';
import type { RenewalProof } from './renew.ts';

/**
 * Makes an application credential for this login alone: of the token's project and roles, restricted
 * (it makes no others), and with an end.
 */
export async function makeCredential(
  keystone: Keystone,
  token: IssuedToken,
  lifetimeMs: number,
): Promise<StoredCredential> {
  refuseSystem(token.scope.kind);
  const expiresAtMs = systemClock.nowMs() + lifetimeMs;
  const body = await keystone.ask(token.value, {
    method: 'POST',
    path: pathOf(token.user.id),
    body: {
      application_credential: {
        name: `hypernetes-login-${hostname()}-${nameSuffix(systemRandom, 8)}`.slice(0, 255),
        description: 'Made by "hypernetes login --remember"; "hypernetes logout" removes it.',
        expires_at: new Date(expiresAtMs).toISOString().slice(0, 19),
        unrestricted: false,
      },
    },
  });
  const made = fields(body['application_credential'], 'application_credential');
  const { secret } = made;
  if (typeof secret !== 'string' || secret === '') {
    throw new UsageError('Cannot remember the login: the answer holds no secret.');
  }
  return { id: idOf(made['id'], 'application_credential.id'), secret, expiresAtMs, isOurs: true };
}

/** @throws UsageError for what Keystone binds no application credential to */
export function refuseSystem(kind: string): void {
  if (kind !== 'system') return;
  throw new UsageError(
    'Cannot remember a login for the whole system: application credentials are for one project. ' +
      'Leave --remember out.',
  );
}

/**
 * Takes away an application credential that login made: by the token of the login, by itself, or by
 * the password. A restricted one may not remove itself everywhere.
 *
 * @param token of the profile, if it has one
 * @throws KeystoneRefusal when nobody at hand may
 */
export function removeCredential(
  profile: Profile,
  token: { value: string } | undefined,
  askPassword: (() => Promise<string>) | undefined,
): Promise<void> {
  const { credential, user } = profile;
  if (!credential?.isOurs) return Promise.resolve();
  const { id, secret } = credential;
  const renew = async (proof: RenewalProof) => (await renewToken(profile, proof)).value;
  const ways = [
    token && (() => Promise.resolve(token.value)),
    () => renew({ kind: 'credential', id, secret }),
    askPassword && (async () => renew({ kind: 'password', password: await askPassword() })),
  ].filter((way) => way !== undefined);
  return withKeystone(profile, async (keystone) => {
    let refusal: unknown;
    for (const way of ways) {
      try {
        const path = `${pathOf(user.id)}/${id}`;
        await keystone.ask(await way(), { method: 'DELETE', path });
        return;
      } catch (error) {
        if (!(error instanceof KeystoneRefusal)) throw error;
        if (error.status === 404) return;
        refusal = error;
      }
    }
    throw refusal;
  });
}

const pathOf = (userId: string) => `/users/${userId}/application_credentials`;
