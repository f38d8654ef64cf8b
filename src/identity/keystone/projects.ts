import {
  IdentityConflictError,
  IdentityForbiddenError,
  IdentityNotFoundError,
  IdentityUnavailableError,
} from '../../api/identity.ts';
import type {
  IdentityAssignment,
  IdentityProject,
  IdentityProvider,
  NewProject,
} from '../../api/identity.ts';
import type { Directory } from './directory.ts';
import { expectSuccess } from './directory.ts';
import { fields, isId, list, parseAssignments, parseProject } from './parse.ts';
import type { RawProject } from './parse.ts';
import type { KeystoneSession } from './session.ts';

export type Projects = Pick<
  IdentityProvider,
  | 'listProjects'
  | 'getProject'
  | 'createProject'
  | 'updateProject'
  | 'deleteProject'
  | 'listAssignments'
  | 'grant'
  | 'revoke'
>;

/** Tens of thousands of projects. */
const LIST_LIMIT_BYTES = 64 << 20;
const LIST_TIMEOUT_MS = 30_000;
/** Writes take a real Keystone longer than questions. */
const WRITE_TIMEOUT_MS = 15_000;

/** Keystone's projects and who has which role on them. @param changed called after each write */
export function createProjects(
  session: KeystoneSession,
  directory: Directory,
  changed: () => void,
): Projects {
  const complete = async (raw: RawProject): Promise<IdentityProject> => {
    const { domainId, ...rest } = raw;
    return { ...rest, domain: await directory.domainOf(domainId) };
  };

  const getProject = async (id: string): Promise<IdentityProject | undefined> => {
    if (!isId(id)) return undefined;
    const answer = await session.request({ method: 'GET', path: `/projects/${id}` });
    if (answer.status === 404) return undefined;
    expectSuccess(answer, `get project "${id}"`);
    const raw = parseProject(fields(answer.body, '')['project']);
    return raw && complete(raw);
  };

  /** Whether another project of that domain has the name. */
  const isTaken = async (name: string, domainId: string, id?: string): Promise<boolean> => {
    const query = { name, domain_id: domainId };
    const answer = await session.request({ method: 'GET', path: '/projects', query });
    expectSuccess(answer, `look for project "${name}"`);
    const raws = list(fields(answer.body, '')['projects'], 'projects').map(parseProject);
    return raws.some((raw) => raw?.name === name && raw.id !== id);
  };

  const write = async (
    method: 'POST' | 'PATCH',
    path: string,
    project: Partial<NewProject>,
    what: string,
  ): Promise<IdentityProject> => {
    const body = { project: wireOf(project) };
    const timeoutMs = WRITE_TIMEOUT_MS;
    const answer = await session.request({ method, path, body, timeoutMs });
    if (answer.status === 409) {
      throw new IdentityConflictError(`Cannot ${what}: ${answer.message}`);
    }
    if (answer.status === 400 || answer.status === 403) {
      await expectReferences(project, what);
    }
    expectSuccess(answer, what);
    const raw = parseProject(fields(answer.body, '')['project']);
    if (!raw) throw new IdentityUnavailableError(`Cannot ${what}: Keystone made a domain of it`);
    changed();
    return complete(raw);
  };

  /** Keystone says "bad request" or "forbidden" where the domain or the project above is absent. */
  const expectReferences = async (project: Partial<NewProject>, what: string): Promise<void> => {
    const { domainId, parentId } = project;
    if (domainId !== undefined) {
      if (!isId(domainId)) throw new IdentityNotFoundError(`Cannot ${what}: no such domain`);
      await directory.domainOf(domainId);
    }
    if (parentId !== undefined && !(await getProject(parentId))) {
      throw new IdentityNotFoundError(`Cannot ${what}: no project "${parentId}" above it`);
    }
  };

  return {
    async listProjects() {
      const body = await listAll(session, '/projects', {});
      const raws = list(body['projects'], 'projects').map(parseProject);
      return Promise.all(raws.filter((raw) => raw !== undefined).map(complete));
    },
    getProject,
    createProject: (project) =>
      write('POST', '/projects', project, `create project "${project.name}"`),

    async updateProject(id, changes) {
      const what = `update project "${id}"`;
      if (!isId(id)) throw new IdentityNotFoundError(`Cannot ${what}: not an id`);
      try {
        return await write('PATCH', `/projects/${id}`, changes, what);
      } catch (error) {
        // Keystone 22 breaks the connection off instead of telling that the name is taken.
        const { name } = changes;
        if (!(error instanceof IdentityUnavailableError) || name === undefined) throw error;
        const domainId = (await getProject(id))?.domain.id;
        if (domainId === undefined || !(await isTaken(name, domainId, id))) throw error;
        throw new IdentityConflictError(`Cannot ${what}: "${name}" is taken`, { cause: error });
      }
    },

    async deleteProject(id) {
      if (!isId(id)) return;
      const what = `delete project "${id}"`;
      const path = `/projects/${id}`;
      const timeoutMs = WRITE_TIMEOUT_MS;
      const answer = await session.request({ method: 'DELETE', path, timeoutMs });
      if (answer.status === 404) return;
      if (answer.status === 403 && (await hasChildren(session, id))) {
        throw new IdentityConflictError(`Cannot ${what}: it has projects below it`);
      }
      expectSuccess(answer, what);
      changed();
    },

    async listAssignments(projectId) {
      if (!isId(projectId)) return [];
      const query = { 'scope.project.id': projectId, include_names: 'true' };
      const body = await listAll(session, '/role_assignments', query);
      return parseAssignments(body).map((assignment) => ({ projectId, ...assignment }));
    },

    grant: (assignment) => assign(session, directory, 'PUT', assignment),
    revoke: (assignment) => assign(session, directory, 'DELETE', assignment),
  };
}

/** Never a part of a collection: what is missing in it would pass for deleted. */
async function listAll(
  session: KeystoneSession,
  path: string,
  query: Record<string, string>,
): Promise<Record<string, unknown>> {
  const answer = await session.request({
    method: 'GET',
    path,
    query,
    limitBytes: LIST_LIMIT_BYTES,
    timeoutMs: LIST_TIMEOUT_MS,
  });
  expectSuccess(answer, `list "${path}"`);
  const body = fields(answer.body, '');
  const links = body['links'] as { next?: unknown } | undefined;
  if (body['truncated'] === true || (links?.next ?? null) !== null) {
    throw new IdentityUnavailableError(
      `Cannot list "${path}": Keystone gives a part only; raise list_limit in its configuration`,
    );
  }
  return body;
}

async function hasChildren(session: KeystoneSession, id: string): Promise<boolean> {
  const query = { parent_id: id };
  const answer = await session.request({ method: 'GET', path: '/projects', query });
  return answer.status === 200 && list(fields(answer.body, '')['projects'], 'projects').length > 0;
}

function wireOf(project: Partial<NewProject>): Record<string, unknown> {
  const { name, domainId, parentId, description, enabled } = project;
  const wire = { name, domain_id: domainId, parent_id: parentId, description, enabled };
  return Object.fromEntries(Object.entries(wire).filter(([, value]) => value !== undefined));
}

async function assign(
  session: KeystoneSession,
  directory: Directory,
  method: 'PUT' | 'DELETE',
  assignment: IdentityAssignment,
): Promise<void> {
  const { projectId, kind, name, domain, role } = assignment;
  const verb = method === 'PUT' ? 'grant' : 'revoke';
  const what = `${verb} role "${role}" of ${kind.toLowerCase()} "${name}" on "${projectId}"`;
  if (!isId(projectId)) throw new IdentityNotFoundError(`Cannot ${what}: not a project's id`);
  for (let attempt = 1; ; attempt += 1) {
    const member = await directory.memberNamed(kind, name, domain);
    const { id: roleId } = await directory.roleNamed(role);
    const path = `/projects/${projectId}/${kind.toLowerCase()}s/${member.id}/roles/${roleId}`;
    const timeoutMs = WRITE_TIMEOUT_MS;
    const answer = await session.request({ method, path, timeoutMs });
    if (answer.status === 404 && attempt === 1) {
      // A domain or role whose id is remembered may have gone and come again.
      directory.forget();
      continue;
    }
    // What is asked for is looked up by now: nothing is left to be absent but the assignment.
    if (answer.status === 404 && method === 'DELETE') return;
    if (answer.status === 403 || answer.status === 401) {
      throw new IdentityForbiddenError(`Cannot ${what}: Keystone answers ${answer.message}`);
    }
    expectSuccess(answer, what);
    return;
  }
}
