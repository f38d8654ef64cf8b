import { assert } from '../../base/assert.ts';
import type { Random } from '../../base/random.ts';
import { compositeId } from './accounts.ts';
import type { Accounts } from './accounts.ts';
import { DEFAULT_DOMAIN_ID } from './directory.ts';
import type { Directory } from './directory.ts';
import { BUILT_IN_ROLES } from './grants.ts';
import type { Grants } from './grants.ts';
import { SYSTEM_ID } from './records.ts';
import type { IdentityState } from './state.ts';

const ADMIN_NAME = 'admin';
const REGION_ID = 'RegionOne';
/** 192 bits: nobody guesses it, and so a lock-out would only keep the operator out. */
const PASSWORD_BYTES = 24;

/** Where clients reach what the catalogue lists. */
export interface CatalogUrls {
  /** Of this API, with its version: `https://host:port/identity/v3`. */
  identity: string;
  /** Of the Kubernetes API: `https://host:port`. */
  kubernetes: string;
}

export interface Bootstrapped {
  /** Only where the administrator was made by this call; it is stored nowhere but as a hash. */
  adminPassword?: string;
}

export interface BootstrapOptions {
  state: IdentityState;
  random: Random;
  directory: Directory;
  accounts: Accounts;
  grants: Grants;
}

/**
 * Makes what every cloud begins with: the default domain, the built-in roles, a project and a user
 * `admin` with the role on both the project and the system, and the catalogue. Repeatable: what a
 * crash left half-made is completed, and what was completed once is the operator's to change.
 */
export async function bootstrap(
  options: BootstrapOptions,
  urls: CatalogUrls,
): Promise<Bootstrapped> {
  const { state, directory } = options;
  const { domains } = state.tables;
  await domains.create({
    id: DEFAULT_DOMAIN_ID,
    name: 'Default',
    description: 'The default domain',
    enabled: true,
    epoch: 0,
  });
  await ensureCatalog(state, urls);
  if (domains.require(DEFAULT_DOMAIN_ID).bootstrapped) return {};
  await ensureRoles(options);
  if (!state.projectsByName(DEFAULT_DOMAIN_ID, ADMIN_NAME)[0]) {
    await directory.createProject({
      name: ADMIN_NAME,
      domainId: DEFAULT_DOMAIN_ID,
      description: 'Bootstrap project for initializing the cloud.',
      enabled: true,
      tags: [],
    });
  }
  const recovered = await recoverAdmin(options);
  await domains.update(DEFAULT_DOMAIN_ID, (domain) => ({ ...domain, bootstrapped: true }));
  return recovered;
}

async function ensureRoles({ state, grants }: BootstrapOptions): Promise<void> {
  let above: string | undefined;
  for (const name of BUILT_IN_ROLES) {
    const existing = state.tables.roles.all().find((role) => role.name === name);
    const { id } = existing ?? (await grants.createRole({ name, description: '' }));
    if (above !== undefined) await grants.imply(above, id);
    above = id;
  }
}

/**
 * The way back in for an operator who has the machine and no password: the user `admin` is made
 * where it is missing, enabled, given its rights and a new password. Its tokens end.
 */
export async function recoverAdmin(options: BootstrapOptions): Promise<Required<Bootstrapped>> {
  const { state, random, accounts, grants } = options;
  const user =
    state.usersByName(DEFAULT_DOMAIN_ID, ADMIN_NAME)[0] ??
    (await accounts.createUser({
      name: ADMIN_NAME,
      domainId: DEFAULT_DOMAIN_ID,
      enabled: true,
      options: { ignore_lockout_failure_attempts: true, ignore_password_expiry: true },
    }));
  const roleId = state.tables.roles.all().find(({ name }) => name === BUILT_IN_ROLES[0])?.id;
  assert(roleId, 'the built-in roles cannot be deleted');
  const actor = { roleId, actorKind: 'user', actorId: user.id, inherited: false } as const;
  const project = state.projectsByName(DEFAULT_DOMAIN_ID, ADMIN_NAME)[0];
  if (project) await grants.grant({ ...actor, targetKind: 'project', targetId: project.id });
  await grants.grant({ ...actor, targetKind: 'system', targetId: SYSTEM_ID });
  const adminPassword = Buffer.from(random.bytes(PASSWORD_BYTES)).toString('base64url');
  await accounts.updateUser(user.id, { password: adminPassword, enabled: true });
  return { adminPassword };
}

/** The entries of our own follow the addresses; what the operator added stays as it is. */
async function ensureCatalog(state: IdentityState, urls: CatalogUrls): Promise<void> {
  const { regions, services, endpoints } = state.tables;
  await regions.create({ id: REGION_ID, description: '' });
  const own = [
    { type: 'identity', name: 'keystone', url: urls.identity },
    { type: 'kubernetes', name: 'hypernetes', url: urls.kubernetes },
  ];
  for (const { type, name, url } of own) {
    const serviceId = compositeId('service', type);
    await services.create({ id: serviceId, type, name, description: '', enabled: true });
    for (const side of ['public', 'internal', 'admin'] as const) {
      const id = compositeId('endpoint', type, side);
      const fresh = { id, serviceId, regionId: REGION_ID, interface: side, url, enabled: true };
      await endpoints.upsert(id, (before) => (before?.url === url ? undefined : fresh));
    }
  }
}
