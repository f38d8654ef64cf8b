import { readFileIfExists } from '../../base/files.ts';
import { describeError } from '../../base/log.ts';
import { UsageError } from '../errors.ts';
import { openTerminal } from '../prompt.ts';
import { requireProfile } from './credential-command.ts';
import { currentLogin } from './current.ts';
import { changeKubeconfig, removeLogin } from './kubeconfig-file.ts';
import { ownPassword } from './login.ts';
import { openProfiles, profileName } from './profiles.ts';
import type { Profile, ProfileStore } from './profiles.ts';
import { removeCredential } from './remember.ts';
import { withKeystone } from './renew.ts';
import { readSecretFile, readSecretStdin } from './secrets.ts';

export interface LogoutFlags {
  context?: string;
  all?: boolean;
  kubeconfig?: string;
  passwordFile?: string;
  passwordStdin?: boolean;
  json?: boolean;
}

interface Outcome {
  profile: string;
  context: string;
  /** What the identity service still honours, and why. */
  left: string[];
}

/**
 * Ends logins: their tokens and application credentials, and what login wrote. The machine forgets
 * them in any case; what could not be revoked is told, with exit code 1.
 */
export async function logout(flags: LogoutFlags): Promise<void> {
  const store = openProfiles();
  const outcomes: Outcome[] = [];
  for (const profile of await chosen(flags, store)) {
    outcomes.push(await end(profile, store, flags));
  }
  if (flags.json) process.stdout.write(`${JSON.stringify(outcomes, null, 2)}\n`);
  for (const { context, left } of outcomes) {
    if (!flags.json) process.stdout.write(`Logged out of "${context}".\n`);
    for (const text of left) process.stderr.write(`hypernetes: ${text}\n`);
    if (left.length > 0) process.exitCode = 1;
  }
}

async function chosen(flags: LogoutFlags, store: ProfileStore): Promise<Profile[]> {
  if (flags.all) return store.list();
  if (flags.context) return [await requireProfile(store, profileName(flags.context))];
  const current = await currentLogin(store, flags.kubeconfig);
  if (current) return [current];
  const [only, ...more] = await store.list();
  if (only && more.length === 0) return [only];
  if (!only) throw new UsageError('Nobody is logged in.');
  const names = [only, ...more].map(({ kubeconfig }) => kubeconfig.context).join(', ');
  throw new UsageError(`Choose with --context, or all with --all: ${names}.`);
}

async function end(profile: Profile, store: ProfileStore, flags: LogoutFlags): Promise<Outcome> {
  const left: string[] = [];
  const token = await store.readToken(profile);
  try {
    await removeCredential(profile, token, passwordSource(profile, flags));
  } catch (error) {
    const { credential } = profile;
    const until = new Date(credential?.expiresAtMs ?? 0).toISOString();
    left.push(
      `The application credential ${credential?.id} could not be removed and ends at ${until}: ` +
        describeError(error),
    );
  }
  try {
    if (token) await withKeystone(profile, (keystone) => keystone.revoke(token.value));
  } catch (error) {
    const until = new Date(token?.expiresAtMs ?? 0).toISOString();
    left.push(`The token could not be revoked and ends at ${until}: ${describeError(error)}`);
  }
  const { path, context, previousContext } = profile.kubeconfig;
  if (await readFileIfExists(path)) {
    await changeKubeconfig(path, (text = '') => ({
      text: removeLogin(text, { context, profile: profile.name, previousContext }),
    }));
  }
  await store.remove(profile.name);
  return { profile: profile.name, context, left };
}

function passwordSource(profile: Profile, flags: LogoutFlags) {
  const { passwordFile, passwordStdin } = flags;
  if (passwordFile) return () => readSecretFile(passwordFile, '--password-file');
  if (passwordStdin) return () => readSecretStdin('--password-stdin');
  return ownPassword(openTerminal(), profile);
}
