import type { TenantMember, TenantRole } from '../../api/tenancy.ts';
import { TENANT_ROLES } from '../../api/tenancy.ts';
import { TENANTS } from '../../client/resources.ts';
import { StatusError } from '../../api/status.ts';
import { withCluster } from '../access.ts';
import type { AccessFlags, Place } from '../access.ts';
import { UsageError } from '../errors.ts';
import { print } from '../output.ts';
import { table } from '../table.ts';
import { getTenant } from './watch.ts';

export interface MemberFlags extends AccessFlags {
  add?: string[];
  remove?: string[];
  role: string;
  group?: boolean;
}

const DEFAULT_DOMAIN = 'Default';
/** Somebody else may change the tenant at the same time. */
const ATTEMPTS_MAX = 5;

/** `alice` or `alice@domain`: the name of a user may hold an @ too, that of a domain does not. */
export function parseMember(
  text: string,
  kind: TenantMember['kind'],
  role: TenantRole,
): TenantMember {
  const at = text.lastIndexOf('@');
  const name = at < 0 ? text : text.slice(0, at);
  const domain = at < 0 ? DEFAULT_DOMAIN : text.slice(at + 1);
  if (name === '' || domain === '') {
    throw new UsageError(`Cannot read the member "${text}": write it as NAME or NAME@DOMAIN.`);
  }
  return { kind, name, ...(domain !== DEFAULT_DOMAIN && { domain }), role };
}

/** Shows who belongs to a tenant by its spec, after adding and removing people. */
export async function tenantMembers(name: string, flags: MemberFlags, place: Place): Promise<void> {
  const role = TENANT_ROLES.find((one) => one === flags.role);
  if (!role) {
    throw new UsageError(`There is no role "${flags.role}": there are ${TENANT_ROLES.join(', ')}.`);
  }
  const kind = flags.group ? 'Group' : 'User';
  const added = (flags.add ?? []).map((text) => parseMember(text, kind, role));
  const removed = (flags.remove ?? []).map((text) => parseMember(text, kind, role));
  await withCluster(flags, place, async ({ client }) => {
    let tenant = await getTenant(client, name);
    for (let attempt = 1; added.length + removed.length > 0; attempt++) {
      const members = change(tenant.spec.members ?? [], added, removed);
      try {
        tenant = await client.update(TENANTS, { ...tenant, spec: { ...tenant.spec, members } });
        break;
      } catch (error) {
        const isRace = error instanceof StatusError && error.reason === 'Conflict';
        if (!isRace || attempt === ATTEMPTS_MAX) throw error;
        tenant = await getTenant(client, name);
      }
    }
    const members = tenant.spec.members ?? [];
    print(flags.json, members, () =>
      members.length === 0
        ? `No members are named by tenant "${name}"; see also "hypernetes role list".\n`
        : table(
            ['NAME', 'DOMAIN', 'KIND', 'ROLE'],
            members.map((one) => [one.name, one.domain ?? DEFAULT_DOMAIN, one.kind, one.role]),
          ),
    );
  });
}

/** Who is added has the new role alone; who is removed has none, whatever it was. */
function change(
  members: TenantMember[],
  added: TenantMember[],
  removed: TenantMember[],
): TenantMember[] {
  const keyOf = ({ kind, name, domain = DEFAULT_DOMAIN }: TenantMember) =>
    JSON.stringify([kind, name, domain]);
  const known = new Set(members.map(keyOf));
  const stranger = removed.find((member) => !known.has(keyOf(member)));
  if (stranger) throw new UsageError(`"${stranger.name}" is not a member of the tenant's list.`);
  const gone = new Set([...added, ...removed].map(keyOf));
  return [...members.filter((member) => !gone.has(keyOf(member))), ...added];
}
