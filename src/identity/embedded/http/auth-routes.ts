import type { Authenticated } from '../authenticate.ts';
import { badRequest, notAuthorized, notFound } from '../errors.ts';
import { SYSTEM_ID } from '../records.ts';
import { effectiveRoles, SYSTEM, targetsOf } from '../rights.ts';
import { readAuthentication } from './auth-request.ts';
import type { Call, Reply, Route } from './call.ts';
import { listReply, NO_CONTENT } from './call.ts';
import { renderCatalog, renderDomain, renderProject, renderToken } from './render.ts';

const SUBJECT = 'x-subject-token';

/** `?nocatalog`, with or without a value. */
const wantsCatalog = (call: Call) => !call.query.has('nocatalog');

async function issue(call: Call): Promise<Reply> {
  const request = readAuthentication(call.body);
  if (call.source !== undefined) request.source = call.source;
  const made = await call.identity.authenticate(request);
  return {
    status: 201,
    headers: { 'X-Subject-Token': made.token },
    body: renderToken(call.identity, made, wantsCatalog(call)),
  };
}

/** The token that a request is about. It may be its bearer's own, or an operator asks. */
function subjectOf(call: Call, mayAlways: boolean, action: string): Authenticated {
  const text = call.headers[SUBJECT];
  if (text === undefined) throw badRequest('The header X-Subject-Token is required.');
  const subject = call.identity.validate(text);
  const own = subject?.session.user.id === call.policy.userId;
  if (!own && !mayAlways) throw notAuthorized(action);
  // The text is not repeated: it would end in logs.
  if (!subject) throw notFound('token', 'it is invalid, expired or revoked');
  return subject;
}

function validate(call: Call): Reply {
  const subject = subjectOf(call, call.policy.systemReader, 'identity:validate_token');
  return {
    status: 200,
    headers: { 'X-Subject-Token': subject.token },
    body: renderToken(call.identity, subject, wantsCatalog(call)),
  };
}

async function revoke(call: Call): Promise<Reply> {
  const subject = subjectOf(call, call.policy.systemAdmin, 'identity:revoke_token');
  await call.identity.revokeToken(subject);
  return NO_CONTENT;
}

function catalog(call: Call): Reply {
  const { scope } = call.caller.session;
  const projectId = scope.kind === 'project' ? scope.project.id : undefined;
  const services = scope.kind === 'unscoped' ? [] : renderCatalog(call.identity.state, projectId);
  return listReply(call, 'catalog', services, '/auth/catalog');
}

/** Where the caller's user can go: what is disabled is not shown. */
function ownProjects(call: Call): Reply {
  const { projects, domains } = call.identity.state.tables;
  const own = targetsOf(call.identity.state, call.policy.userId, 'project')
    .flatMap((id) => projects.get(id) ?? [])
    .filter((project) => project.enabled && domains.get(project.domainId)?.enabled)
    .map((project) => renderProject(call.baseUrl, project));
  return listReply(call, 'projects', own, '/auth/projects');
}

function ownDomains(call: Call): Reply {
  const own = targetsOf(call.identity.state, call.policy.userId, 'domain')
    .flatMap((id) => call.identity.state.tables.domains.get(id) ?? [])
    .filter(({ enabled }) => enabled)
    .map((domain) => renderDomain(call.baseUrl, domain));
  return listReply(call, 'domains', own, '/auth/domains');
}

function ownSystem(call: Call): Reply {
  const roles = effectiveRoles(call.identity.state, call.policy.userId, SYSTEM);
  const system = roles.size > 0 ? [{ [SYSTEM_ID]: true }] : [];
  return listReply(call, 'system', system, '/auth/system');
}

export const AUTH_ROUTES: Route[] = [
  {
    method: 'POST',
    path: '/auth/tokens',
    open: true,
    action: 'identity:authenticate',
    handle: issue,
  },
  { method: 'GET', path: '/auth/tokens', action: 'identity:validate_token', handle: validate },
  { method: 'DELETE', path: '/auth/tokens', action: 'identity:revoke_token', handle: revoke },
  { method: 'GET', path: '/auth/catalog', action: 'identity:get_auth_catalog', handle: catalog },
  {
    method: 'GET',
    path: '/auth/projects',
    action: 'identity:get_auth_projects',
    handle: ownProjects,
  },
  { method: 'GET', path: '/auth/domains', action: 'identity:get_auth_domains', handle: ownDomains },
  { method: 'GET', path: '/auth/system', action: 'identity:get_auth_system', handle: ownSystem },
];
