import { withPeople } from '../access.ts';
import type { AccessFlags, People, Place } from '../access.ts';
import { UsageError } from '../errors.ts';
import { print } from '../output.ts';
import { table } from '../table.ts';
import { groupNamed, listOf, projectNamed, roleNamed, userNamed } from './lookup.ts';

export interface RoleFlags extends AccessFlags {
  user?: string;
  group?: string;
  domain?: string;
  tenant?: string;
  project?: string;
  projectDomain?: string;
  system?: boolean;
}

/** Gives a role or takes it, of a user or group, on a tenant's project or the whole system. */
export async function changeRole(
  method: 'PUT' | 'DELETE',
  role: string,
  flags: RoleFlags,
  place: Place,
): Promise<void> {
  const who = flags.user ?? flags.group;
  if (who === undefined || (flags.user && flags.group)) {
    throw new UsageError('Say whose role it is: one of --user and --group.');
  }
  const where = placeOf(flags);
  if (where === undefined) throw new UsageError('Say where: --tenant, --project or --system.');
  await withPeople(flags, place, async (people) => {
    const target = await targetOf(people, flags);
    const actor = await actorOf(people, flags);
    const { id } = await roleNamed(people, role);
    const path = `/${target}/${actor}/roles/${id}`;
    await people.keystone.ask(people.token, { method, path });
    const isGranted = method === 'PUT';
    print(flags.json, { role, who, where, isGranted }, () => {
      return `role "${role}" ${isGranted ? 'granted to' : 'revoked from'} "${who}" on ${where}\n`;
    });
  });
}

function placeOf({ tenant, project, system }: RoleFlags): string | undefined {
  const given = [tenant, project, system].filter(Boolean);
  if (given.length > 1) throw new UsageError('Say one of --tenant, --project and --system.');
  return system ? 'the whole system' : (tenant ?? project);
}

async function targetOf(people: People, flags: RoleFlags): Promise<string> {
  if (flags.system) return 'system';
  const name = flags.tenant ?? flags.project ?? '';
  const { id } = await projectNamed(people, name, flags.projectDomain);
  return `projects/${id}`;
}

async function actorOf(people: People, { user, group, domain }: RoleFlags): Promise<string> {
  if (user !== undefined) return `users/${(await userNamed(people, user, domain)).id}`;
  return `groups/${(await groupNamed(people, group ?? '', domain)).id}`;
}

interface Named {
  id: string;
  name?: string;
  domain?: { name?: string };
}

interface Assignment {
  role: Named;
  user?: Named;
  group?: Named;
  scope: { project?: Named; domain?: Named; system?: unknown; [inherited: string]: unknown };
}

/** Who has which role where, as it was given: what a role implies is not listed. */
export async function listRoles(flags: RoleFlags, place: Place): Promise<void> {
  const where = placeOf(flags);
  await withPeople(flags, place, async (people) => {
    const target = where === undefined ? undefined : await targetOf(people, flags);
    const isSomeone = flags.user !== undefined || flags.group !== undefined;
    const actor = isSomeone ? await actorOf(people, flags) : undefined;
    const idOf = (kind: string, path: string | undefined) =>
      path?.startsWith(`${kind}/`) ? path.slice(kind.length + 1) : undefined;
    const found = (await listOf(people, '/role_assignments', {
      include_names: '1',
      'scope.project.id': idOf('projects', target),
      'scope.system': target === 'system' ? 'all' : undefined,
      'user.id': idOf('users', actor),
      'group.id': idOf('groups', actor),
    })) as unknown as Assignment[];
    print(flags.json, found, () => table(['ROLE', 'WHO', 'KIND', 'ON'], found.map(rowOf)));
  });
}

function rowOf({ role, user, group, scope }: Assignment): string[] {
  const who = user ?? group;
  const isInherited = 'OS-INHERIT:inherited_to' in scope;
  const on = scope.system
    ? 'the whole system'
    : scope.domain
      ? `domain ${nameOf(scope.domain)}`
      : nameOf(scope.project);
  return [
    nameOf(role),
    `${nameOf(who)}${who?.domain?.name ? `@${who.domain.name}` : ''}`,
    user ? 'User' : 'Group',
    isInherited ? `${on} and below` : on,
  ];
}

const nameOf = (named: Named | undefined) => named?.name ?? named?.id ?? '-';
