import { systemClock } from '../../base/clock.ts';
import { UsageError } from '../errors.ts';
import { credentialContext } from '../login/credential-command.ts';
import { currentToken } from '../login/credential.ts';
import { currentLogin } from '../login/current.ts';
import { contextName, enter } from '../login/enter.ts';
import { changeKubeconfig, useContext } from '../login/kubeconfig-file.ts';
import { KeystoneRefusal } from '../login/keystone.ts';
import type { IssuedToken, Keystone } from '../login/keystone.ts';
import type { Profile, ProfileStore } from '../login/profiles.ts';
import { withKeystone } from '../login/renew.ts';
import { reviewToken } from '../login/reviewed.ts';
import { scopeToken } from '../login/scope.ts';
import type { ScopeWish } from '../login/sources.ts';
import { ownPassword } from '../login/login.ts';
import { print } from '../output.ts';

export interface UseFlags {
  kubeconfig?: string;
  context?: string;
  namespace?: string;
  json?: boolean;
}

/**
 * Goes on as the same person in another tenant: by the login for it, if there is one, or with a
 * token that is made from the present one (or the password, where that cannot be).
 */
export async function useTenant(tenant: string, flags: UseFlags): Promise<void> {
  const context = credentialContext(true);
  const { profiles } = context;
  const profile = await currentLogin(profiles, flags.kubeconfig);
  if (!profile) {
    throw new UsageError(
      `The current context is no login: use "hypernetes login --tenant ${tenant}".`,
    );
  }
  const existing = await loginFor(profiles, profile, tenant);
  if (existing) {
    const { path, context: name } = existing.kubeconfig;
    await changeKubeconfig(path, (text = '') => ({
      text: useContext(text, name, flags.namespace),
    }));
    return tell(flags, existing);
  }
  const wish: ScopeWish = { kind: 'project', project: tenant };
  const made = await withKeystone(profile, async (keystone) => {
    const present = await currentToken(profile, context);
    const token = await rescope(keystone, present.value, wish, () => {
      const ask = ownPassword(context.terminal, profile);
      if (ask) return ask();
      throw new UsageError(
        `This login is for its tenant alone: use "hypernetes login --tenant ${tenant}".`,
      );
    });
    const { server, caCert, authCaCert } = profile;
    const reviewed = await reviewToken(server, caCert, token.value);
    return enter(keystone, profiles, {
      ...{ server, caCert, authCaCert, token, reviewed },
      ...{ kubeconfig: profile.kubeconfig.path, context: flags.context },
      namespace: flags.namespace,
      rememberMs: rememberedMs(profile),
    });
  });
  tell(flags, made);
}

/** A login of the same person for the tenant, whose token is good or renews itself. */
async function loginFor(profiles: ProfileStore, like: Profile, tenant: string) {
  const wanted = contextName({
    server: like.server,
    reviewed: { username: '', groups: [], tenant },
  });
  const found = (await profiles.list()).find(
    ({ kubeconfig, user, server }) =>
      kubeconfig.context === wanted && user.id === like.user.id && server === like.server,
  );
  if (!found) return undefined;
  const isUsable =
    found.credential || (await currentToken(found, silent(profiles)).catch(() => undefined));
  return isUsable ? found : undefined;
}

/** Whoever is renewed in one tenant is in the other, for as long. */
function rememberedMs({ credential }: Profile): number | undefined {
  if (!credential?.isOurs || credential.expiresAtMs === undefined) return undefined;
  return Math.max(0, credential.expiresAtMs - systemClock.nowMs());
}

const silent = (profiles: ProfileStore) => ({
  ...credentialContext(false),
  profiles,
});

async function rescope(
  keystone: Keystone,
  value: string,
  wish: ScopeWish,
  askPassword: () => Promise<string>,
): Promise<IssuedToken> {
  const token = await keystone.inspect(value);
  if (token.applicationCredentialId === undefined) {
    return scopeToken(keystone, token, wish, undefined);
  }
  const password = await askPassword();
  const user = { id: token.user.id };
  const fresh = await keystone
    .authenticate({ kind: 'password', user, password })
    .catch((error: unknown) => {
      if (!(error instanceof KeystoneRefusal)) throw error;
      throw new UsageError('The password is wrong, or the account is locked or disabled.');
    });
  return scopeToken(keystone, fresh, wish, undefined);
}

function tell(flags: UseFlags, { tenant, kubeconfig }: Profile): void {
  const result = { tenant, context: kubeconfig.context, kubeconfig: kubeconfig.path };
  print(flags.json, result, () => `kubectl's context is now "${kubeconfig.context}".\n`);
}
