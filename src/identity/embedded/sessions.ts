import type { Clock } from '../../base/clock.ts';
import type { ApplicationCredential, Domain, Project, Role, User } from './records.ts';
import { effectiveRoles, lineage, SYSTEM } from './rights.ts';
import type { Target } from './rights.ts';
import { CLOCK_SKEW_MAX_MS } from './settings.ts';
import type { IdentityState } from './state.ts';
import type { Claims } from './token-codec.ts';

export type Scope =
  | { kind: 'project'; project: Project; domain: Domain }
  | { kind: 'domain'; domain: Domain }
  | { kind: 'system' }
  | { kind: 'unscoped' };

/** What somebody may be and do, as it is now: a token only says who, where and since when. */
export interface Session {
  user: User;
  userDomain: Domain;
  scope: Scope;
  /** Effective: implied and inherited ones included. Empty only for an unscoped session. */
  roles: Role[];
  credential?: ApplicationCredential;
}

/** Where a session is wanted. */
export interface ScopeRef {
  kind: Scope['kind'];
  /** Of a project or domain. */
  id?: string;
}

/**
 * The session of a user at a scope; undefined when the user, the scope or anything above it is
 * absent or disabled, or the user has no role there. A credential narrows the roles to those it
 * was made with, as far as its user still has them.
 */
export function openSession(
  state: IdentityState,
  clock: Clock,
  userId: string,
  scopeRef: ScopeRef,
  credential?: ApplicationCredential,
): Session | undefined {
  const user = state.tables.users.get(userId);
  const userDomain = user && state.tables.domains.get(user.domainId);
  if (!user?.enabled || !userDomain?.enabled) return undefined;
  const scope = findScope(state, scopeRef);
  if (!scope) return undefined;
  if (scope.kind === 'unscoped') return { user, userDomain, scope, roles: [] };
  let roleIds = effectiveRoles(state, userId, targetOf(scope));
  if (credential) {
    const { expiresAtMs, projectId } = credential;
    if (credential.userId !== userId || projectId !== scopeRef.id) return undefined;
    if (expiresAtMs !== undefined && expiresAtMs <= clock.nowMs()) return undefined;
    roleIds = roleIds.intersection(new Set(credential.roleIds));
  }
  if (roleIds.size === 0) return undefined;
  const roles = [...roleIds].flatMap((id) => state.tables.roles.get(id) ?? []);
  return { user, userDomain, scope, roles, ...(credential && { credential }) };
}

function findScope(state: IdentityState, { kind, id = '' }: ScopeRef): Scope | undefined {
  if (kind === 'unscoped' || kind === 'system') return { kind };
  if (kind === 'domain') {
    const domain = state.tables.domains.get(id);
    return domain?.enabled ? { kind, domain } : undefined;
  }
  const project = state.tables.projects.get(id);
  const domain = project && state.tables.domains.get(project.domainId);
  if (!project || !domain?.enabled) return undefined;
  const usable = lineage(state, project).every((above) => above.enabled);
  return usable ? { kind, project, domain } : undefined;
}

function targetOf(scope: Exclude<Scope, { kind: 'unscoped' }>): Target {
  if (scope.kind === 'system') return SYSTEM;
  if (scope.kind === 'domain') return { kind: 'domain', id: scope.domain.id };
  return { kind: 'project', id: scope.project.id };
}

/**
 * Epochs end tokens without a list of them: whatever ends the tokens of a user, project or domain
 * makes its epoch larger, and a token has to carry the present sums. Unlike times of issue they
 * need no clocks that agree.
 */
export function epochsOf(state: IdentityState, session: Session) {
  const { user, userDomain, scope } = session;
  const userEpoch = user.epoch + userDomain.epoch;
  if (scope.kind === 'domain') return { userEpoch, scopeEpoch: scope.domain.epoch };
  if (scope.kind !== 'project') return { userEpoch, scopeEpoch: 0 };
  const above = lineage(state, scope.project);
  const scopeEpoch = above.reduce((sum, project) => sum + project.epoch, scope.domain.epoch);
  return { userEpoch, scopeEpoch };
}

/** The session that a token stands for now; undefined when it has ended. */
export function resumeSession(
  state: IdentityState,
  clock: Clock,
  claims: Claims,
): Session | undefined {
  const nowMs = clock.nowMs();
  if (claims.expiresAtMs <= nowMs || claims.issuedAtMs > nowMs + CLOCK_SKEW_MAX_MS) {
    return undefined;
  }
  const { revocations, applicationcredentials } = state.tables;
  if (revocations.get(claims.auditId) || revocations.get(claims.chainId)) return undefined;
  let credential: ApplicationCredential | undefined;
  if (claims.credentialId !== undefined) {
    credential = applicationcredentials.get(claims.credentialId);
    if (!credential) return undefined;
  }
  const scopeRef = { kind: claims.scopeKind, ...(claims.scopeId && { id: claims.scopeId }) };
  const session = openSession(state, clock, claims.userId, scopeRef, credential);
  if (!session) return undefined;
  const { userEpoch, scopeEpoch } = epochsOf(state, session);
  if (claims.userEpoch !== userEpoch || (claims.scopeEpoch ?? 0) !== scopeEpoch) return undefined;
  return session;
}
