import { IdentityForbiddenError, IdentityUnavailableError } from '../../api/identity.ts';
import type { IdentityProject, IdentityToken } from '../../api/identity.ts';
import type { Clock } from '../../base/clock.ts';
import type { Log } from '../../base/log.ts';
import { createLru } from './lru.ts';
import type { Directory } from './directory.ts';
import { expectSuccess } from './directory.ts';
import { fields, isId, parseGroups, parseProject, parseToken } from './parse.ts';
import type { RawToken } from './parse.ts';
import type { KeystoneSession } from './session.ts';

/** Puts together, from several questions to Keystone, what a token stands for. */
export interface TokenDescriber {
  /**
   * @param userId of the token, when it is known: saves waiting for one answer after the other
   * @returns undefined for a token that Keystone does not accept
   */
  describe(token: string, userId?: string): Promise<IdentityToken | undefined>;
}

/** What a service user may not ask is not asked again for so long. */
const FORBIDDEN_PAUSE_MS = 60_000;
/** Parent and description of a project; its name and whether it is enabled come with each token. */
const PROJECT_REMEMBERED_MS = 60_000;
const PROJECTS_REMEMBERED_MAX = 8192;

type Extra = Pick<IdentityProject, 'parentId' | 'description'>;

export function createTokenDescriber(options: {
  session: KeystoneSession;
  directory: Directory;
  clock: Clock;
  log: Log;
}): TokenDescriber {
  const { session, directory, clock, log } = options;
  const projects = createLru<{ extra: Extra; untilMs: number }>(PROJECTS_REMEMBERED_MAX);
  const forbiddenUntilMs = new Map<string, number>();

  /** Asks what adds to a token; without the right to ask, the token goes without. */
  const askIfAllowed = async (what: string, path: string): Promise<unknown> => {
    if (clock.monotonicMs() < (forbiddenUntilMs.get(what) ?? 0)) return undefined;
    const answer = await session.request({ method: 'GET', path });
    if (answer.status === 404) return undefined;
    if (answer.status === 403) {
      forbiddenUntilMs.set(what, clock.monotonicMs() + FORBIDDEN_PAUSE_MS);
      log.warn(`the service user may not ask for ${what}: tokens go without`);
      return undefined;
    }
    expectSuccess(answer, `ask for ${what}`);
    return answer.body;
  };

  const askToken = async (token: string): Promise<RawToken | undefined> => {
    const answer = await session.request({
      method: 'GET',
      path: '/auth/tokens',
      query: { nocatalog: '' },
      // Without the second, tokens with access rules pass for invalid.
      headers: { 'x-subject-token': token, 'openstack-identity-access-rules': '1.0' },
    });
    if (answer.status === 404) return undefined;
    if (answer.status !== 200) {
      throw new IdentityForbiddenError(
        `Cannot validate tokens: Keystone answers ${answer.status}: ${answer.message}`,
      );
    }
    const subject = answer.headers['x-subject-token'];
    if (subject !== undefined && subject !== token) {
      throw new IdentityUnavailableError('Cannot validate token: the answer is of another one');
    }
    return parseToken(answer.body);
  };

  const askGroups = async (user: string): Promise<IdentityToken['groups']> => {
    const path = `/users/${encodeURIComponent(user)}/groups`;
    const body = await askIfAllowed("users' groups", path);
    if (body === undefined) return [];
    const groups = parseGroups(body);
    return Promise.all(
      groups.map(async ({ name, domainId }) => ({
        name,
        domain: (await directory.domainOf(domainId)).name,
      })),
    );
  };

  const askExtra = async (project: string): Promise<Extra> => {
    const known = projects.get(project);
    if (known && clock.monotonicMs() < known.untilMs) return known.extra;
    const body = await askIfAllowed('projects', `/projects/${encodeURIComponent(project)}`);
    const raw = body === undefined ? undefined : parseProject(fields(body, '')['project']);
    const extra: Extra = { description: raw?.description ?? '', parentId: raw?.parentId };
    projects.set(project, { extra, untilMs: clock.monotonicMs() + PROJECT_REMEMBERED_MS });
    return extra;
  };

  const scopeOf = async ({ scope }: RawToken): Promise<IdentityToken['scope']> => {
    if (scope.kind !== 'project') return scope;
    const { parentId, description } = await askExtra(scope.project.id);
    const above = parentId === undefined ? {} : { parentId };
    // A token of a disabled project is not valid.
    const project = { ...scope.project, ...above, description, enabled: true };
    return { kind: 'project', project };
  };

  return {
    async describe(token, userId) {
      const early = userId !== undefined && isId(userId) ? askGroups(userId) : undefined;
      // It is awaited below; until then its failure is nobody's.
      early?.catch(() => {});
      const raw = await askToken(token);
      if (!raw) return undefined;
      const isEarlyRight = early !== undefined && raw.user.id === userId;
      const [groups, scope] = await Promise.all([
        isEarlyRight ? early : askGroups(raw.user.id),
        scopeOf(raw),
      ]);
      return { ...raw, scope, groups };
    },
  };
}
