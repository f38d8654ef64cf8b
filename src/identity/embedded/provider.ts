import {
  IdentityConflictError,
  IdentityForbiddenError,
  IdentityNotFoundError,
} from '../../api/identity.ts';
import type {
  IdentityAssignment,
  IdentityProject,
  IdentityProvider,
  IdentityToken,
  NewProject,
} from '../../api/identity.ts';
import type { Authenticated } from './authenticate.ts';
import { KeystoneError } from './errors.ts';
import { checkName } from './grants.ts';
import type { GrantRef } from './grants.ts';
import type { Domain, Project } from './records.ts';
import type { EmbeddedIdentity } from './service.ts';
import { looksLikeToken } from './token-codec.ts';

/**
 * The embedded service as the rest of the system uses it. It asks nobody and caches nothing: a
 * token that was revoked here ends at once. It does not own the service.
 */
export function createEmbeddedProvider(identity: EmbeddedIdentity): IdentityProvider {
  const { state, directory, grants } = identity;
  const { projects, domains, users, groups, roles } = state.tables;

  const render = (project: Project): IdentityProject | undefined => {
    const domain = domains.get(project.domainId);
    return domain && renderProject(project, domain);
  };
  const renderExisting = (project: Project): IdentityProject => {
    const rendered = render(project);
    if (!rendered) throw new IdentityNotFoundError(`No domain "${project.domainId}"`);
    return rendered;
  };

  /** @throws IdentityNotFoundError for whatever of it does not exist */
  const refOf = (assignment: IdentityAssignment): GrantRef => {
    const { projectId, kind, name, domain: domainName, role: roleName } = assignment;
    const domain = needed(
      domains.all().find((one) => one.name === domainName),
      'domain',
      domainName,
    );
    const named = kind === 'User' ? state.usersByName : state.groupsByName;
    const actor = needed(named(domain.id, name)[0], kind.toLowerCase(), name);
    const role = needed(
      roles.all().find((one) => one.name === roleName),
      'role',
      roleName,
    );
    return {
      roleId: role.id,
      actorKind: kind === 'User' ? 'user' : 'group',
      actorId: actor.id,
      targetKind: 'project',
      targetId: needed(projects.get(projectId), 'project', projectId).id,
      inherited: false,
    };
  };

  return {
    kind: 'embedded',
    recognises: looksLikeToken,
    async validate(token, signal) {
      signal?.throwIfAborted();
      const found = identity.validate(token);
      return found && renderToken(identity, found);
    },
    listProjects: async () => projects.all().flatMap((project) => render(project) ?? []),
    async getProject(id) {
      const project = projects.get(id);
      return project && render(project);
    },
    createProject: (project) =>
      translated(async () => {
        checkName('name', project.name);
        const { name, domainId, parentId, description = '', enabled } = project;
        const parent = parentId === undefined ? {} : { parentId };
        const wanted = { name, domainId, ...parent, description, enabled, tags: [] };
        return renderExisting(await directory.createProject(wanted));
      }),
    updateProject: (id, changes) =>
      translated(async () => {
        if (changes.name !== undefined) checkName('name', changes.name);
        return renderExisting(await directory.updateProject(id, defined(changes)));
      }),
    async deleteProject(id) {
      await translated(async () => {
        if (!projects.get(id)) return;
        if (state.childrenOf(id).length > 0) {
          throw new IdentityConflictError(
            `Cannot delete project "${id}": it has projects below it`,
          );
        }
        await directory.deleteProject(id);
      });
    },
    async listAssignments(projectId) {
      return state.assignmentsOnTarget(projectId).flatMap((assignment): IdentityAssignment[] => {
        const { actorKind, actorId, roleId, targetKind, inherited } = assignment;
        const actor = actorKind === 'user' ? users.get(actorId) : groups.get(actorId);
        const domain = actor && domains.get(actor.domainId);
        const role = roles.get(roleId);
        if (!actor || !domain || !role || inherited || targetKind !== 'project') return [];
        const kind = actorKind === 'user' ? 'User' : 'Group';
        return [{ projectId, kind, name: actor.name, domain: domain.name, role: role.name }];
      });
    },
    grant: (assignment) => translated(async () => grants.grant(refOf(assignment))),
    revoke: (assignment) => translated(async () => void (await grants.revoke(refOf(assignment)))),
    onProjectsChanged(changed, signal) {
      projects.onChange(changed, signal);
      domains.onChange(changed, signal);
    },
    close: () => Promise.resolve(),
  };
}

function needed<T>(found: T | undefined, kind: string, name: string): T {
  if (found === undefined) throw new IdentityNotFoundError(`No ${kind} "${name}"`);
  return found;
}

function defined(changes: Partial<NewProject>): Partial<NewProject> {
  return Object.fromEntries(
    Object.entries(changes).filter(([, value]) => value !== undefined),
  ) as Partial<NewProject>;
}

const ERRORS: Record<number, new (message: string, options: ErrorOptions) => Error> = {
  403: IdentityForbiddenError,
  404: IdentityNotFoundError,
  409: IdentityConflictError,
};

/** Keystone's errors in the words of the interface; others as they are. */
async function translated<R>(work: () => Promise<R>): Promise<R> {
  try {
    return await work();
  } catch (cause) {
    const Translated = cause instanceof KeystoneError ? ERRORS[cause.code] : undefined;
    if (!Translated || !(cause instanceof KeystoneError)) throw cause;
    throw new Translated(cause.message, { cause });
  }
}

const named = ({ id, name }: { id: string; name: string }) => ({ id, name });

function renderProject(project: Project, domain: Domain): IdentityProject {
  const { id, name, parentId, description, enabled } = project;
  const parent = parentId === undefined ? {} : { parentId };
  return { id, name, domain: named(domain), ...parent, description, enabled };
}

function renderToken(
  { state }: EmbeddedIdentity,
  { claims, session }: Authenticated,
): IdentityToken {
  const { user, userDomain, scope, roles, credential } = session;
  const { groups, domains } = state.tables;
  const rendered: IdentityToken = {
    user: { ...named(user), domain: named(userDomain) },
    methods: claims.methods,
    issuedAtMs: claims.issuedAtMs,
    expiresAtMs: claims.expiresAtMs,
    scope:
      scope.kind === 'project'
        ? { kind: 'project', project: renderProject(scope.project, scope.domain) }
        : scope.kind === 'domain'
          ? { kind: 'domain', domain: named(scope.domain) }
          : scope,
    roles: roles.map(({ name }) => name),
    groups: state.membershipsOfUser(user.id).flatMap(({ groupId }) => {
      const group = groups.get(groupId);
      const domain = group && domains.get(group.domainId);
      return domain ? [{ name: group.name, domain: domain.name }] : [];
    }),
  };
  if (credential) {
    rendered.applicationCredentialId = credential.id;
    if (credential.accessRules) {
      rendered.accessRules = credential.accessRules.map(({ service, method, path }) => ({
        ...{ service, method, path },
      }));
    }
  }
  return rendered;
}
