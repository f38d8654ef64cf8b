import { list } from '../../identity/keystone/parse.ts';
import type { People } from '../access.ts';
import { UsageError } from '../errors.ts';
import { KeystoneRefusal } from '../login/keystone.ts';

/** What the identity service says of a user, project, role, …; what is not used is kept for --json. */
export interface Found {
  id: string;
  name: string;
  [field: string]: unknown;
}

const DEFAULT_DOMAIN = { id: 'default', name: 'Default' };

export async function listOf(
  { keystone, token }: People,
  path: string,
  query: Record<string, string | undefined> = {},
): Promise<Found[]> {
  const body = await keystone.ask(token, { method: 'GET', path, query });
  const name = path.slice(path.lastIndexOf('/') + 1);
  return list(body[name], name) as Found[];
}

/** @throws UsageError unless there is exactly one of that name */
async function one(
  people: People,
  path: string,
  name: string,
  query: Record<string, string | undefined> = {},
): Promise<Found> {
  const kind = path.slice(1, -1);
  const found = await listOf(people, path, { ...query, name });
  // Keystone compares names as its database does, which may not tell capitals.
  const exact = found.filter((item) => item.name === name);
  const [first, ...more] = exact.length > 0 ? exact : found;
  if (!first) throw new UsageError(`There is no ${kind} "${name}".`);
  if (more.length > 0) {
    throw new UsageError(`There are several ${kind}s "${name}": tell which by its domain.`);
  }
  return first;
}

/** The id of a domain. Only operators may list domains; everybody knows the default one. */
export async function domainId(people: People, name: string | undefined): Promise<string> {
  if (name === undefined || name === DEFAULT_DOMAIN.name) return DEFAULT_DOMAIN.id;
  try {
    return (await one(people, '/domains', name)).id;
  } catch (error) {
    if (!(error instanceof KeystoneRefusal) || error.status !== 403) throw error;
    const { user } = await people.keystone.inspect(people.token);
    if (user.domain.name === name) return user.domain.id;
    throw error;
  }
}

export async function userNamed(people: People, name: string, domain: string | undefined) {
  return one(people, '/users', name, { domain_id: await domainId(people, domain) });
}

export async function groupNamed(people: People, name: string, domain: string | undefined) {
  return one(people, '/groups', name, { domain_id: await domainId(people, domain) });
}

export const roleNamed = (people: People, name: string) => one(people, '/roles', name);

/** @param domain absent: any, as long as there is only one of that name */
export async function projectNamed(people: People, name: string, domain: string | undefined) {
  const domain_id = domain === undefined ? undefined : await domainId(people, domain);
  return one(people, '/projects', name, { domain_id });
}
