import { UsageError } from '../errors.ts';
import { parseDuration } from '../duration.ts';
import type { Openrc } from '../openrc.ts';
import { openTerminal } from '../prompt.ts';
import type { Terminal } from '../prompt.ts';
import type { AddressFlags } from './address.ts';
import { resolveAddress, serverCa, serverInCatalog } from './address.ts';
import { currentLogin } from './current.ts';
import { enter } from './enter.ts';
import { KeystoneRefusal } from './keystone.ts';
import type { IssuedToken, Keystone, Proof } from './keystone.ts';
import { openProfiles } from './profiles.ts';
import type { Profile, ProfileStore } from './profiles.ts';
import { refuseSystem } from './remember.ts';
import { withKeystone } from './renew.ts';
import type { Reviewed } from './reviewed.ts';
import { reviewToken } from './reviewed.ts';
import { scopeToken } from './scope.ts';
import { proofOf, readVariables, scopeWish } from './sources.ts';
import type { ScopeFlags, WhoFlags } from './sources.ts';

export interface LoginFlags extends AddressFlags, WhoFlags, ScopeFlags {
  openrc?: string;
  kubeconfig?: string;
  context?: string;
  namespace?: string;
  /** For how long; `true` for as long as usual. */
  remember?: string | true;
  execVersion?: 'v1' | 'v1beta1';
  json?: boolean;
}

const REMEMBER_DEFAULT = '30d';

/** Proves who somebody is, and lets kubectl be them from now on. */
export async function login(flags: LoginFlags): Promise<void> {
  const terminal = openTerminal();
  const store = openProfiles();
  const profiles = await store.list();
  const { remember } = flags;
  const rememberMs =
    remember === undefined
      ? undefined
      : parseDuration(remember === true ? REMEMBER_DEFAULT : remember, '--remember');
  const variables = await readVariables(flags.openrc);
  const again = isBare(flags, variables) ? await sameAgain(flags, store, profiles) : undefined;
  const repeated = again ? repeat(flags, again) : flags;
  const address = await resolveAddress(repeated, { variables, profiles, terminal });
  const wish = scopeWish(repeated, repeated, variables);
  if (rememberMs !== undefined && wish) refuseSystem(wish.kind);
  const proof = await proofOf(repeated, variables, terminal);

  const { profile, token, reviewed } = await withKeystone(address, async (keystone) => {
    const first = await prove(keystone, proof);
    const scoped = await scopeToken(keystone, first, wish, terminal);
    if (rememberMs !== undefined) refuseSystem(scoped.scope.kind);
    const server = address.server ?? serverInCatalog(scoped.catalog);
    if (!server) throw new UsageError('Cannot find the cluster: name it with --server.');
    const caCert = address.caCert ?? (await serverCa(server, flags, { profiles, terminal }));
    const accepted = await reviewToken(server, caCert, scoped.value);
    const made = await enter(keystone, store, {
      ...{ server, caCert, authCaCert: address.authCaCert, token: scoped, reviewed: accepted },
      ...remembering(proof, rememberMs),
      kubeconfig: flags.kubeconfig,
      context: flags.context,
      namespace: flags.namespace,
      execVersion: flags.execVersion,
    });
    return { profile: made, token: scoped, reviewed: accepted };
  });
  print(flags, profile, token, reviewed);
}

/** Whether nothing says who and where: then the same as before. */
function isBare(flags: LoginFlags, variables: Openrc): boolean {
  const { user, tokenFile, applicationCredentialId, server, authUrl } = flags;
  const given = [user, tokenFile, applicationCredentialId, server, authUrl];
  return !given.some(Boolean) && Object.keys(variables).length === 0;
}

async function sameAgain({ context, kubeconfig }: LoginFlags, store: ProfileStore, all: Profile[]) {
  if (context === undefined) return currentLogin(store, kubeconfig);
  return all.find((profile) => profile.kubeconfig.context === context);
}

function repeat(flags: LoginFlags, { server, authUrl, user, scope }: Profile): LoginFlags {
  const isScoped = flags.tenant || flags.project || flags.system;
  const before = scope.kind === 'system' ? { system: true } : { project: scope.id };
  return {
    ...flags,
    ...{ server, authUrl, user: user.name, domain: user.domain },
    ...(!isScoped && before),
  };
}

/** A credential that was brought is kept where it is to be remembered, and never removed. */
function remembering(proof: Proof, rememberMs: number | undefined) {
  if (rememberMs === undefined) return {};
  if (proof.kind !== 'credential') return { rememberMs };
  return { credential: { id: proof.id, secret: proof.secret, isOurs: false } };
}

async function prove(keystone: Keystone, proof: Proof): Promise<IssuedToken> {
  try {
    if (proof.kind === 'token') return await keystone.inspect(proof.token);
    return await keystone.authenticate(proof);
  } catch (error) {
    if (!(error instanceof KeystoneRefusal) || ![401, 404].includes(error.status)) throw error;
    throw new UsageError(`Cannot log in at ${keystone.url}: ${refusalOf(proof)}.`);
  }
}

function refusalOf(proof: Proof): string {
  if (proof.kind === 'token') return 'the token is invalid, expired or revoked';
  if (proof.kind === 'credential') {
    return 'the application credential or its secret is wrong, or it has expired';
  }
  const { user } = proof;
  const who = 'name' in user && 'name' in user.domain ? `"${user.name}@${user.domain.name}"` : 'it';
  return `the user or password is wrong, or the account ${who} is locked or disabled`;
}

function print(
  { json }: LoginFlags,
  profile: Profile,
  token: IssuedToken,
  { username, tenant }: Reviewed,
): void {
  const { kubeconfig, credential, server } = profile;
  const until = new Date(token.localExpiresAtMs).toISOString();
  const rememberedUntil =
    credential?.expiresAtMs === undefined ? undefined : new Date(credential.expiresAtMs);
  if (json) {
    const { path, context } = kubeconfig;
    const result = {
      ...{ user: username, tenant, roles: token.roles, server, profile: profile.name },
      ...{ context, kubeconfig: path, tokenExpiresAt: until },
      rememberedUntil: rememberedUntil?.toISOString(),
    };
    process.stdout.write(`${JSON.stringify(result, null, 2)}\n`);
    return;
  }
  const what = tenant ? `tenant ${tenant}` : 'the whole system';
  const lasts = credential
    ? `renewed by itself${rememberedUntil ? ` until ${rememberedUntil.toISOString()}` : ''}`
    : `until ${until}`;
  process.stdout.write(
    `Logged in as ${username} for ${what} with ${token.roles.join(', ') || 'no role'}, ${lasts}.\n` +
      `kubectl's context is now "${kubeconfig.context}" (${kubeconfig.path}).\n`,
  );
}

/** For errors and questions: who, of a profile. */
export function ownPassword(
  terminal: Terminal | undefined,
  { user, server }: Profile,
): (() => Promise<string>) | undefined {
  if (!terminal) return undefined;
  return () => terminal.askSecret(`Password of ${user.name}@${user.domain} for ${server}: `);
}
