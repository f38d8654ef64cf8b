import type { IdentityProject } from '../../api/identity.ts';
import { isStatus } from '../../api/status.ts';
import { DEFAULT_DOMAIN_ID } from '../../api/identity.ts';
import { TENANT_API_VERSION, TENANT_NAME_LENGTH_MAX } from '../../api/tenancy.ts';
import type { Tenant, TenantSpec } from '../../api/tenancy.ts';
import type { Log } from '../../base/log.ts';
import type { Client } from '../../client/client.ts';
import { TENANTS } from '../../client/resources.ts';
import type { TenantDirectory } from './directory.ts';

/** Of the project's id: what tells tenants apart whose projects have about the same name. */
const ID_SHOWN_LENGTH = 8;

export interface ProjectTenantsOptions {
  tenants: TenantDirectory;
  /** Acts as the API server itself; undefined where projects get no tenants by themselves. */
  client: () => Client | undefined;
  log: Log;
}

/**
 * The tenant of a project, made for it on first use where that is wanted. Asked many times at once
 * for one project, it makes one.
 *
 * @returns undefined when the project is nobody's
 */
export function createProjectTenants(
  options: ProjectTenantsOptions,
): (project: IdentityProject) => Promise<string | undefined> {
  const { tenants, log } = options;
  const making = new Map<string, Promise<string | undefined>>();
  return async (project) => {
    const known = tenants.ofProject(project)?.metadata.name;
    if (known !== undefined) return known;
    const client = options.client();
    if (!client) return undefined;
    let made = making.get(project.id);
    if (!made) {
      made = makeTenant(client, tenants, project).finally(() => making.delete(project.id));
      making.set(project.id, made);
    }
    const name = await made;
    if (name === undefined) log.warn('No name is free for a tenant', { project: project.id });
    else log.info('A project has got its tenant', { project: project.id, tenant: name });
    return name;
  };
}

async function makeTenant(
  client: Client,
  tenants: TenantDirectory,
  project: IdentityProject,
): Promise<string | undefined> {
  const above = project.parentId ? tenants.ofProject({ id: project.parentId }) : undefined;
  for (const name of candidates(project, above?.metadata.name)) {
    if (!(await create(client, tenants, name, project, above))) continue;
    const body = { status: { projectID: project.id } };
    await client.patch(TENANTS, { name }, 'merge', body, { subresource: 'status' });
    return name;
  }
  return undefined;
}

/** @returns whether the project has a Tenant of this name now */
async function create(
  client: Client,
  tenants: TenantDirectory,
  name: string,
  project: IdentityProject,
  above: Tenant | undefined,
): Promise<boolean> {
  const spec: TenantSpec = { displayName: project.name, projectID: project.id };
  if (above) {
    spec.parent = above.metadata.name ?? '';
    // What is limited above has to be given first.
    const limits = tenants
      .ancestors(spec.parent)
      .flatMap((tenant) => Object.keys(tenant.spec.quota?.hard ?? {}));
    const hard = Object.fromEntries(limits.map((limit) => [limit, '0']));
    if (limits.length > 0) spec.quota = { hard };
  }
  try {
    const head = { apiVersion: TENANT_API_VERSION, kind: 'Tenant' };
    await client.create(TENANTS, { ...head, metadata: { name }, spec });
    return true;
  } catch (error) {
    // Made before, and the process ended before it was told so.
    if (isStatus(error, 'AlreadyExists')) {
      const known = tenants.get(name);
      return known?.spec.projectID === project.id && !known.metadata.deletionTimestamp;
    }
    // The name belongs to others already, or is nobody's to have.
    if (isStatus(error, 'Forbidden') || isStatus(error, 'Invalid')) return false;
    throw error;
  }
}

/** From the most readable to the one that is certainly free. */
function candidates({ id, name, domain }: IdentityProject, above: string | undefined): string[] {
  const isDefault = domain.id === DEFAULT_DOMAIN_ID;
  const full = above !== undefined || isDefault ? name : `${domain.name}-${name}`;
  const readable = slug(full);
  const joined = readable.replaceAll('-', '');
  const unique = slug(id).replaceAll('-', '').slice(0, ID_SHOWN_LENGTH);
  const start = above === undefined ? '' : `${above}-`;
  const fit = (text: string, end = '') => {
    const room = TENANT_NAME_LENGTH_MAX - start.length - end.length;
    return `${start}${text.slice(0, Math.max(0, room))}`.replace(/-+$/, '') + end;
  };
  const names = [fit(readable), fit(joined), fit(joined || 'p', unique)];
  return [...new Set(names)].filter((one) => one !== '' && !one.endsWith('-'));
}

/** Letters, digits and single dashes in between; accents are left off. */
function slug(text: string): string {
  return text
    .normalize('NFKD')
    .replace(/\p{M}/gu, '')
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-+|-+$/g, '');
}
