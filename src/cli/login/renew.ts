import type { Keystone, Proof, WantedScope } from './keystone.ts';
import { openKeystone } from './keystone.ts';
import type { IssuedToken } from './keystone.ts';
import type { Profile, StoredToken } from './profiles.ts';

/** What somebody proves with that it is still them. */
export type RenewalProof =
  { kind: 'credential'; id: string; secret: string } | { kind: 'password'; password: string };

export type Renewal = (profile: Profile, proof: RenewalProof) => Promise<StoredToken>;

/** A new token of the same user for the same scope. */
export const renewToken: Renewal = (profile, given) =>
  withKeystone(profile, async (keystone) => {
    const { user, scope } = profile;
    const proof: Proof =
      given.kind === 'credential'
        ? { kind: 'credential', id: given.id, secret: given.secret }
        : { kind: 'password', user: { id: user.id }, password: given.password };
    // An application credential has the scope that it was made with.
    const wanted = given.kind === 'credential' ? undefined : wantedScope(scope);
    return storedToken(profile.id, await keystone.authenticate(proof, wanted));
  });

/** Opens the identity service of a profile for as long as `action` takes. */
export async function withKeystone<T>(
  { authUrl, authCaCert }: Pick<Profile, 'authUrl' | 'authCaCert'>,
  action: (keystone: Keystone) => Promise<T>,
): Promise<T> {
  const keystone = openKeystone(authUrl, authCaCert);
  try {
    return await action(keystone);
  } finally {
    keystone.close();
  }
}

function wantedScope(scope: Profile['scope']): WantedScope {
  return scope.kind === 'system' ? scope : { kind: 'project', id: scope.id };
}

export function storedToken(profileId: string, token: IssuedToken): StoredToken {
  const { value, localExpiresAtMs: expiresAtMs, methods } = token;
  return { profileId, value, expiresAtMs, methods };
}
