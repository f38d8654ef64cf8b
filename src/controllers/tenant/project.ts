import {
  DEFAULT_DOMAIN_ID,
  IdentityConflictError,
  IdentityForbiddenError,
  IdentityUnavailableError,
} from '../../api/identity.ts';
import type { IdentityProject, IdentityProvider } from '../../api/identity.ts';
import { PROJECT_DISABLED } from '../../api/tenancy.ts';
import type { Tenant } from '../../api/tenancy.ts';
import { describeError } from '../../base/log.ts';
import type { Finding } from './conditions.ts';

/** What is known of the other tenants. */
export interface Surroundings {
  parent: Tenant | undefined;
  /** The other tenant whose project this is. */
  ownerOf: (projectId: string) => string | undefined;
  /** From now on it is this tenant's, as `ownerOf` tells the others. */
  claim: (projectId: string) => void;
}

export interface ProjectOutcome {
  /** The tenant's own, once that is certain. */
  projectId?: string;
  finding: Finding;
  /** Nobody will tell when it is otherwise: it has to be looked at again. */
  isPassing?: boolean;
}

const finding = (status: Finding['status'], reason: string, message: string): Finding => ({
  ...{ type: 'IdentitySynced', status, reason, message },
});

const NO_SERVICE = 'there is no identity service: people are told by certificates and groups';
export const NO_IDENTITY: ProjectOutcome = {
  finding: finding('Unknown', 'NoIdentityService', NO_SERVICE),
};

function failed(reason: string, message: string, more: Partial<ProjectOutcome> = {}) {
  return { finding: finding('False', reason, message), ...more };
}

/** What the identity service's failures are to people. Others are not expected, and thrown. */
export function outcomeOfError(error: unknown): ProjectOutcome {
  const message = describeError(error);
  if (error instanceof IdentityUnavailableError) {
    return { finding: finding('Unknown', 'IdentityUnavailable', message), isPassing: true };
  }
  if (error instanceof IdentityForbiddenError) {
    return failed('IdentityForbidden', message, { isPassing: true });
  }
  throw error;
}

/** Whether the project was made for this tenant, and so goes with it. */
export function isMadeFor({ metadata }: Tenant, { description }: IdentityProject): boolean {
  return description.endsWith(`(${metadata.uid})`);
}

/** The tenant's project: the one that it names, or one that is made or found for it. */
export async function syncProject(
  identity: IdentityProvider,
  tenant: Tenant,
  around: Surroundings,
): Promise<ProjectOutcome> {
  const { projectID } = tenant.spec;
  const outcome = projectID
    ? await checkProject(identity, tenant, projectID)
    : await makeProject(identity, tenant, around);
  const { projectId } = outcome;
  if (projectId === undefined) return outcome;
  // Asked after all that had to be waited for: of two tenants that want it, one is the first.
  const owner = around.ownerOf(projectId);
  if (owner !== undefined) {
    const message = `project ${projectId} is the tenant ${owner}'s`;
    return failed('ProjectTaken', message, { isPassing: true });
  }
  around.claim(projectId);
  return outcome;
}

async function checkProject(
  identity: IdentityProvider,
  tenant: Tenant,
  id: string,
): Promise<ProjectOutcome> {
  const project = await identity.getProject(id);
  if (!project) {
    const wasThere = tenant.status?.projectID === id;
    if (!wasThere)
      return failed('ProjectNotFound', `there is no project ${id}`, { isPassing: true });
    const message = `project ${id} has been deleted; nothing of the tenant was`;
    return failed('ProjectDeleted', message, { projectId: id });
  }
  const named = `project ${JSON.stringify(project.name)} of the domain ${project.domain.name}`;
  if (!project.enabled) return failed(PROJECT_DISABLED, `${named} is disabled`, { projectId: id });
  return { projectId: id, finding: finding('True', 'Synced', named) };
}

async function makeProject(
  identity: IdentityProvider,
  tenant: Tenant,
  around: Surroundings,
): Promise<ProjectOutcome> {
  const { name = '', uid } = tenant.metadata;
  const place = await placeOf(identity, tenant, around);
  if (!place) {
    const message = `the project of the tenant ${tenant.spec.parent} is not known yet`;
    return failed('ParentNotReady', message, { isPassing: true });
  }
  const description = `Hypernetes tenant ${name} (${uid})`;
  let project: IdentityProject | undefined;
  try {
    project = await identity.createProject({ name, ...place, description, enabled: true });
  } catch (error) {
    if (!(error instanceof IdentityConflictError)) throw error;
    project = await adoptable(identity, tenant, place, around);
  }
  if (!project) {
    const message = `there is a project ${JSON.stringify(name)} already, which is not the tenant's`;
    return failed('ProjectConflict', message, { isPassing: true });
  }
  const message = `project ${JSON.stringify(project.name)} of the domain ${project.domain.name}`;
  return { projectId: project.id, finding: finding('True', 'Synced', message) };
}

interface Place {
  domainId: string;
  parentId?: string;
}

/** Below the project of the tenant above, or right below the default domain. */
async function placeOf(
  identity: IdentityProvider,
  { spec }: Tenant,
  { parent }: Surroundings,
): Promise<Place | undefined> {
  if (spec.parent === undefined) return { domainId: DEFAULT_DOMAIN_ID };
  const parentId = parent?.status?.projectID;
  const above = parentId && (await identity.getProject(parentId));
  return above ? { domainId: above.domain.id, parentId: above.id } : undefined;
}

/**
 * A project of the tenant's name that may become its own. It has to lie where the tenant's would:
 * or else who may make sub-tenants could get hold of strangers' projects.
 */
async function adoptable(
  identity: IdentityProvider,
  tenant: Tenant,
  place: Place,
  { ownerOf }: Surroundings,
): Promise<IdentityProject | undefined> {
  const projects = await identity.listProjects();
  const found = projects.find(
    ({ name, domain }) => name === tenant.metadata.name && domain.id === place.domainId,
  );
  if (!found || ownerOf(found.id) !== undefined) return undefined;
  return found.parentId === place.parentId ? found : undefined;
}
