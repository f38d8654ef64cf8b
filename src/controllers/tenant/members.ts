import { IdentityNotFoundError } from '../../api/identity.ts';
import type { IdentityAssignment, IdentityProvider } from '../../api/identity.ts';
import type { Tenant, TenantMember } from '../../api/tenancy.ts';

const DEFAULT_DOMAIN = 'Default';

/** The members whose roles the controller has given: it takes no others away. */
export interface MembersOutcome {
  members: TenantMember[];
  /** Who is not known to the identity service, as `alice@Default`. */
  unknown: string[];
}

/**
 * Gives the members of the spec their roles, and takes from others those that were given before.
 *
 * @param remember writes down what is about to be given, before it is
 */
export async function syncMembers(
  identity: IdentityProvider,
  tenant: Tenant,
  projectId: string,
  remember: (members: TenantMember[]) => Promise<void>,
): Promise<MembersOutcome> {
  const wanted = byKey((tenant.spec.members ?? []).map(complete));
  const given = byKey((tenant.status?.members ?? []).map(complete));
  if (wanted.size === 0 && given.size === 0) return { members: [], unknown: [] };
  const assignments = await identity.listAssignments(projectId);
  const present = new Set(assignments.map((each) => keyOf(each)));
  const missing = [...wanted].filter(([key]) => !present.has(key));
  const superfluous = [...given].filter(([key]) => !wanted.has(key));
  const ours = new Map([...given, ...missing]);
  if (ours.size > given.size) await remember([...ours.values()]);
  const unknown: string[] = [];
  for (const [key, member] of missing) {
    try {
      await identity.grant(assignmentOf(projectId, member));
    } catch (error) {
      if (!(error instanceof IdentityNotFoundError)) throw error;
      unknown.push(`${member.name}@${member.domain}`);
      ours.delete(key);
    }
  }
  for (const [key, member] of superfluous) {
    await revoke(identity, projectId, member);
    ours.delete(key);
  }
  return { members: [...ours.values()], unknown };
}

/** Takes all roles back that were given. */
export async function revokeMembers(
  identity: IdentityProvider,
  { status }: Tenant,
  projectId: string,
): Promise<void> {
  for (const member of status?.members ?? []) await revoke(identity, projectId, complete(member));
}

async function revoke(
  identity: IdentityProvider,
  projectId: string,
  member: Required<TenantMember>,
): Promise<void> {
  try {
    await identity.revoke(assignmentOf(projectId, member));
  } catch (error) {
    // The person is gone, and the role with them.
    if (!(error instanceof IdentityNotFoundError)) throw error;
  }
}

function complete({ kind, name, domain = DEFAULT_DOMAIN, role }: TenantMember) {
  return { kind, name, domain, role };
}

function byKey(members: Required<TenantMember>[]): Map<string, Required<TenantMember>> {
  return new Map(members.map((member) => [keyOf(member), member]));
}

const keyOf = ({ kind, name, domain, role }: Required<TenantMember> | IdentityAssignment) =>
  JSON.stringify([kind, domain, name, role]);

function assignmentOf(projectId: string, member: Required<TenantMember>): IdentityAssignment {
  return { projectId, ...member };
}
