import { rfc3339Micro } from '../../../base/clock.ts';
import type { Authenticated } from '../authenticate.ts';
import type {
  ApplicationCredential,
  Domain,
  Endpoint,
  Group,
  Project,
  Region,
  Role,
  Service,
  User,
} from '../records.ts';
import type { EmbeddedIdentity } from '../service.ts';
import type { IdentityState } from '../state.ts';

/* Records as Keystone shows them. Hashes, epochs and secrets are in none. */

const self = (baseUrl: string, path: string) => ({ links: { self: baseUrl + path } });

export function renderDomain(baseUrl: string, domain: Domain) {
  const { id, name, description, enabled } = domain;
  const common = { id, name, description, enabled, tags: [], options: {} };
  return { ...common, ...self(baseUrl, `/domains/${id}`) };
}

export function renderProject(baseUrl: string, project: Project) {
  const { id, name, description, enabled, domainId, parentId, tags } = project;
  return {
    id,
    name,
    domain_id: domainId,
    description,
    enabled,
    parent_id: parentId ?? domainId,
    is_domain: false,
    tags,
    options: {},
    ...self(baseUrl, `/projects/${id}`),
  };
}

export function renderUser(baseUrl: string, user: User) {
  const { id, name, domainId, enabled, description, email, defaultProjectId, options } = user;
  const expiresAtMs = user.passwords[0]?.expiresAtMs;
  return {
    id,
    name,
    domain_id: domainId,
    enabled,
    ...(description !== undefined && { description }),
    ...(email !== undefined && { email }),
    ...(defaultProjectId !== undefined && { default_project_id: defaultProjectId }),
    password_expires_at: expiresAtMs === undefined ? null : keystoneTime(expiresAtMs),
    options,
    ...self(baseUrl, `/users/${id}`),
  };
}

/** Without a zone, as Keystone has it in what is not a token. */
const keystoneTime = (ms: number) => rfc3339Micro(ms).slice(0, -1);

export function renderGroup(baseUrl: string, group: Group) {
  const { id, name, domainId, description } = group;
  return { id, name, domain_id: domainId, description, ...self(baseUrl, `/groups/${id}`) };
}

export function renderRole(baseUrl: string, role: Role) {
  const { id, name, description } = role;
  const common = { id, name, domain_id: null, description, options: {} };
  return { ...common, ...self(baseUrl, `/roles/${id}`) };
}

export function renderRegion(baseUrl: string, region: Region) {
  const { id, description, parentRegionId } = region;
  const common = { id, description, parent_region_id: parentRegionId ?? null };
  return { ...common, ...self(baseUrl, `/regions/${id}`) };
}

export function renderService(baseUrl: string, service: Service) {
  return { ...service, ...self(baseUrl, `/services/${service.id}`) };
}

export function renderEndpoint(baseUrl: string, endpoint: Endpoint) {
  const { id, serviceId, regionId = null, interface: side, url, enabled } = endpoint;
  return {
    id,
    interface: side,
    region_id: regionId,
    region: regionId,
    service_id: serviceId,
    url,
    enabled,
    ...self(baseUrl, `/endpoints/${id}`),
  };
}

export function renderCredential(
  baseUrl: string,
  state: IdentityState,
  credential: ApplicationCredential,
) {
  const { id, name, description, userId, projectId, expiresAtMs, unrestricted } = credential;
  const roles = credential.roleIds.flatMap((roleId) => state.tables.roles.get(roleId) ?? []);
  return {
    id,
    name,
    description: description ?? null,
    user_id: userId,
    project_id: projectId,
    system: null,
    expires_at: expiresAtMs === undefined ? null : keystoneTime(expiresAtMs),
    unrestricted,
    roles: roles.map((role) => ({ id: role.id, name: role.name, domain_id: null })),
    ...(credential.accessRules && { access_rules: credential.accessRules }),
    ...self(baseUrl, `/users/${userId}/application_credentials/${id}`),
  };
}

/** What a service offers where; `$(project_id)s` in an address stands for the token's project. */
export function renderCatalog(state: IdentityState, projectId: string | undefined) {
  const endpoints = state.tables.endpoints.all().filter(({ enabled }) => enabled);
  return state.tables.services
    .all()
    .filter(({ enabled }) => enabled)
    .map(({ id, type, name }) => ({
      id,
      type,
      name,
      endpoints: endpoints
        .filter(({ serviceId }) => serviceId === id)
        .flatMap(({ id: endpointId, interface: side, regionId = null, url }) => {
          const address = substitute(url, projectId);
          if (address === undefined) return [];
          return {
            id: endpointId,
            interface: side,
            region_id: regionId,
            region: regionId,
            url: address,
          };
        }),
    }));
}

const PROJECT_PLACE = /[$%]\((?:project_id|tenant_id)\)s/g;

function substitute(url: string, projectId: string | undefined): string | undefined {
  if (!url.includes('_id)s')) return url;
  return projectId === undefined ? undefined : url.replaceAll(PROJECT_PLACE, projectId);
}

const named = ({ id, name }: { id: string; name: string }) => ({ id, name });

/** The body of a token, in answers to logging in and to validation. */
export function renderToken(
  identity: EmbeddedIdentity,
  { claims, session }: Authenticated,
  withCatalog: boolean,
) {
  const { user, userDomain, scope, roles, credential } = session;
  const expiresAtMs = user.passwords[0]?.expiresAtMs;
  const { auditId, chainId } = claims;
  const token: Record<string, unknown> = {
    methods: claims.methods,
    user: {
      domain: named(userDomain),
      ...named(user),
      password_expires_at: expiresAtMs === undefined ? null : keystoneTime(expiresAtMs),
    },
    audit_ids: auditId === chainId ? [auditId] : [auditId, chainId],
    issued_at: rfc3339Micro(claims.issuedAtMs),
    expires_at: rfc3339Micro(claims.expiresAtMs),
  };
  if (scope.kind === 'unscoped') return { token };
  token['roles'] = roles.map(named);
  if (scope.kind === 'project') {
    token['project'] = { domain: named(scope.domain), ...named(scope.project) };
    token['is_domain'] = false;
  }
  if (scope.kind === 'domain') token['domain'] = named(scope.domain);
  if (scope.kind === 'system') token['system'] = { all: true };
  if (credential) {
    const restricted = !credential.unrestricted;
    const rules = credential.accessRules && { access_rules: credential.accessRules };
    token['application_credential'] = { ...named(credential), restricted, ...rules };
  }
  if (withCatalog) {
    const projectId = scope.kind === 'project' ? scope.project.id : undefined;
    token['catalog'] = renderCatalog(identity.state, projectId);
  }
  return { token };
}
