import { systemClock } from '../../base/clock.ts';
import { UsageError } from '../errors.ts';
import { openTerminal } from '../prompt.ts';
import { currentToken, execCredential, readExecInfo } from './credential.ts';
import type { CredentialContext } from './credential.ts';
import { openProfiles } from './profiles.ts';
import type { Profile, ProfileStore } from './profiles.ts';
import type { Renewal } from './renew.ts';

/** Loads what speaks to a server only when a token has to be renewed. */
const renewLater: Renewal = async (...args) => (await import('./renew.ts')).renewToken(...args);

/** How this process gets tokens: from what is stored, and by asking where it may ask. */
export function credentialContext(isInteractive: boolean): CredentialContext {
  const terminal = isInteractive ? openTerminal() : undefined;
  return { profiles: openProfiles(), clock: systemClock, terminal, renew: renewLater };
}

/** @throws UsageError that names those that there are */
export async function requireProfile(profiles: ProfileStore, name: string): Promise<Profile> {
  const profile = await profiles.read(name);
  if (profile) return profile;
  const others = (await profiles.list()).map((one) => one.name).join(', ');
  throw new UsageError(
    `There is no login "${name}" on this machine${others ? ` (there are: ${others})` : ''}: ` +
      'log in with "hypernetes login".',
  );
}

/** The exec plugin that kubeconfigs name: prints an ExecCredential. */
export async function credential(profileName: string): Promise<void> {
  const asked = process.env['KUBERNETES_EXEC_INFO'];
  const info = readExecInfo(asked);
  const context = credentialContext(info.isInteractive);
  const { profiles } = context;
  const profile = await requireProfile(profiles, profileName);
  let token = await currentToken(profile, context);
  // kubectl keeps what it gets, and asks again only when the server has refused it.
  const isRefused = asked && (await profiles.handOut(profile.name, token.value, process.ppid));
  if (isRefused) {
    token = await currentToken(profile, { ...context, refused: token.value });
    await profiles.handOut(profile.name, token.value, process.ppid);
  }
  process.stdout.write(execCredential(token, info.apiVersion));
}
