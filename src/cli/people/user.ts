import { fields } from '../../identity/keystone/parse.ts';
import { withPeople } from '../access.ts';
import type { AccessFlags, People, Place } from '../access.ts';
import { UsageError } from '../errors.ts';
import { KeystoneRefusal } from '../login/keystone.ts';
import { readSecretFile, readSecretStdin } from '../login/secrets.ts';
import { describe, print } from '../output.ts';
import { askNewPassword, openTerminal } from '../prompt.ts';
import { table } from '../table.ts';
import { domainId, listOf, userNamed } from './lookup.ts';
import type { Found } from './lookup.ts';

export interface UserFlags extends AccessFlags {
  domain?: string;
  passwordFile?: string;
  passwordStdin?: boolean;
  currentPasswordFile?: string;
  email?: string;
  description?: string;
  yes?: boolean;
}

export async function createUser(name: string, flags: UserFlags, place: Place): Promise<void> {
  const password = await newPassword(flags);
  await withPeople(flags, place, async (people) => {
    const { email, description } = flags;
    const domain_id = await domainId(people, flags.domain);
    const user = { name, domain_id, password, enabled: true, email, description };
    const made = await write(people, 'POST', '/users', user);
    print(flags.json, made, () => `user "${name}" created\n`);
  });
}

export async function listUsers(flags: UserFlags, place: Place): Promise<void> {
  await withPeople(flags, place, async (people) => {
    const domain_id = flags.domain && (await domainId(people, flags.domain));
    const users = await listOf(people, '/users', { domain_id });
    const domains = await namesOfDomains(people);
    print(flags.json, users, () =>
      table(
        ['NAME', 'DOMAIN', 'ENABLED', 'ID'],
        users.map(({ name, domain_id: id, enabled, id: userId }) => [
          ...[name, domains.get(String(id)) ?? String(id), enabled ? 'yes' : 'no', userId],
        ]),
      ),
    );
  });
}

/** Empty where the caller may not list domains. */
async function namesOfDomains(people: People): Promise<Map<string, string>> {
  const domains = await listOf(people, '/domains').catch((error: unknown) => {
    if (error instanceof KeystoneRefusal) return [];
    throw error;
  });
  return new Map(domains.map(({ id, name }) => [id, name]));
}

export async function showUser(name: string, flags: UserFlags, place: Place): Promise<void> {
  await withPeople(flags, place, async (people) => {
    const user = await userNamed(people, name, flags.domain);
    print(flags.json, user, () =>
      describe({
        Name: user.name,
        Id: user.id,
        Domain: flags.domain ?? String(user['domain_id']),
        Enabled: user['enabled'] ? 'yes' : 'no',
        Email: textOf(user['email']),
        Description: textOf(user['description']),
        'Password expires': textOf(user['password_expires_at']),
      }),
    );
  });
}

const textOf = (value: unknown) => (typeof value === 'string' && value ? value : undefined);

/** Of somebody, as an operator; without a name, one's own, for which the present one is needed. */
export async function setPassword(
  name: string | undefined,
  flags: UserFlags,
  place: Place,
): Promise<void> {
  if (name === undefined) return setOwnPassword(flags, place);
  const password = await newPassword(flags);
  await withPeople(flags, place, async (people) => {
    const { id } = await userNamed(people, name, flags.domain);
    const user = await write(people, 'PATCH', `/users/${id}`, { password });
    print(flags.json, user, () => `password of user "${name}" set; their tokens have ended\n`);
  });
}

async function setOwnPassword(flags: UserFlags, place: Place): Promise<void> {
  const current = await currentPassword(flags);
  const password = await newPassword(flags);
  await withPeople(flags, place, async ({ keystone, token }) => {
    const { user } = await keystone.inspect(token);
    const path = `/users/${user.id}/password`;
    const body = { user: { original_password: current, password } };
    await keystone.ask(token, { method: 'POST', path, body });
    print(flags.json, { id: user.id, name: user.name }, () => {
      return 'password changed; tokens that were got with the old one have ended: log in again\n';
    });
  });
}

async function currentPassword({ currentPasswordFile }: UserFlags): Promise<string> {
  if (currentPasswordFile) return readSecretFile(currentPasswordFile, '--current-password-file');
  const terminal = openTerminal();
  if (terminal) return terminal.askSecret('Current password: ');
  throw new UsageError(
    'Cannot ask for the current password: there is no terminal. Use --current-password-file.',
  );
}

async function newPassword({ passwordFile, passwordStdin }: UserFlags): Promise<string> {
  if (passwordFile) return readSecretFile(passwordFile, '--password-file');
  if (passwordStdin) return readSecretStdin('--password-stdin');
  const terminal = openTerminal();
  if (terminal) return askNewPassword(terminal);
  throw new UsageError(
    'Cannot ask for the new password: there is no terminal. Use --password-file or --password-stdin.',
  );
}

export async function enableUser(
  name: string,
  enabled: boolean,
  flags: UserFlags,
  place: Place,
): Promise<void> {
  await withPeople(flags, place, async (people) => {
    const { id } = await userNamed(people, name, flags.domain);
    const user = await write(people, 'PATCH', `/users/${id}`, { enabled });
    print(flags.json, user, () => `user "${name}" ${enabled ? 'enabled' : 'disabled'}\n`);
  });
}

export async function deleteUser(name: string, flags: UserFlags, place: Place): Promise<void> {
  if (!flags.yes) {
    const terminal = openTerminal();
    if (!terminal) {
      throw new UsageError(`Deleting the user "${name}" is final: say --yes if it is meant.`);
    }
    if (!(await terminal.confirm(`Delete the user "${name}"?`))) {
      throw new UsageError('Nothing was deleted.');
    }
  }
  await withPeople(flags, place, async (people) => {
    const { id } = await userNamed(people, name, flags.domain);
    await people.keystone.ask(people.token, { method: 'DELETE', path: `/users/${id}` });
    print(flags.json, { id, name, isDeleted: true }, () => `user "${name}" deleted\n`);
  });
}

async function write(
  { keystone, token }: People,
  method: 'POST' | 'PATCH',
  path: string,
  user: object,
): Promise<Found> {
  const body = await keystone.ask(token, { method, path, body: { user } });
  return fields(body['user'], 'user') as Found;
}
