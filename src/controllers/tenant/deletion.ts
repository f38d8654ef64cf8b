import { NOTHING, allowanceAnnotation, allowancesOf, holdingsOf } from '../../api/holdings.ts';
import { IdentityConflictError } from '../../api/identity.ts';
import type { IdentityProject, IdentityProvider } from '../../api/identity.ts';
import { isStatus } from '../../api/status.ts';
import { TENANT_FINALIZER } from '../../api/tenancy.ts';
import type { Tenant } from '../../api/tenancy.ts';
import type { Namespace, Node, Pod } from '../../api/types.generated.ts';
import { describeError } from '../../base/log.ts';
import type { Client } from '../../client/client.ts';
import { NAMESPACES, NODES, PODS, TENANTS } from '../../client/resources.ts';
import { someOf } from './conditions.ts';
import type { Finding } from './conditions.ts';
import { revokeMembers } from './members.ts';
import { isMadeFor, outcomeOfError } from './project.ts';

/** What a tenant that is being deleted still has. */
export interface Belongings {
  subTenants: Tenant[];
  pods: Pod[];
  namespaces: Namespace[];
  /** That have, or are told about, anything of the tenant beside its pods. */
  nodes: Node[];
}

export interface DeletionContext {
  client: Client;
  identity: IdentityProvider | undefined;
  tenant: Tenant;
  has: Belongings;
}

/**
 * One kind of what a tenant has. What is made for tenants later, such as networks and volumes,
 * becomes a step before the last.
 */
interface Step {
  type: string;
  reason: string;
  /** Does what can be done now. @returns what is still there; undefined when nothing is */
  remove(context: DeletionContext): Promise<string | undefined>;
}

/** In this order: what uses others goes before them. A step begins when those before are done. */
const STEPS: Step[] = [
  {
    type: 'SubTenantsRemaining',
    reason: 'SubTenantsHaveToGoFirst',
    async remove({ has }) {
      const names = has.subTenants.map(({ metadata }) => metadata.name ?? '');
      if (names.length === 0) return undefined;
      return `${names.length} sub-tenants have to be deleted first: ${someOf(names)}`;
    },
  },
  { type: 'PodsRemaining', reason: 'PodsAreStopping', remove: removePods },
  { type: 'NamespacesRemaining', reason: 'NamespacesAreEmptied', remove: removeNamespaces },
  { type: 'NodesRemaining', reason: 'NodesAreCleared', remove: removeFromNodes },
  { type: 'IdentityRemaining', reason: 'ProjectIsDeleted', remove: removeIdentity },
];

/** One pass. @returns what is left, a finding for each kind, and whether nothing is */
export async function removeBelongings(
  context: DeletionContext,
): Promise<{ findings: Finding[]; isEmpty: boolean }> {
  const findings: Finding[] = [];
  let isEmpty = true;
  for (const { type, reason, remove } of STEPS) {
    if (!isEmpty) {
      const message = 'what comes before has to go first';
      findings.push({ type, status: 'Unknown', reason: 'NotYet', message });
      continue;
    }
    const left = await remove(context);
    if (left === undefined) {
      findings.push({ type, status: 'False', reason: 'NothingLeft', message: '' });
      continue;
    }
    isEmpty = false;
    findings.push({ type, status: 'True', reason, message: left });
  }
  return { findings, isEmpty };
}

async function removePods({ client, has }: DeletionContext): Promise<string | undefined> {
  const { pods } = has;
  if (pods.length === 0) return undefined;
  const fresh = pods.filter(({ metadata }) => !metadata.deletionTimestamp);
  const namespaces = new Set(fresh.map(({ metadata }) => metadata.namespace ?? ''));
  for (const namespace of namespaces) {
    await client.deleteCollection(PODS, { namespace, propagationPolicy: 'Background' });
  }
  const names = pods.map(({ metadata }) => `${metadata.namespace}/${metadata.name}`);
  return `${pods.length} pods are being stopped: ${someOf(names)}`;
}

async function removeNamespaces({ client, has }: DeletionContext): Promise<string | undefined> {
  const { namespaces } = has;
  if (namespaces.length === 0) return undefined;
  for (const { metadata } of namespaces) {
    if (metadata.deletionTimestamp) continue;
    const { name = '', uid } = metadata;
    await client.delete(NAMESPACES, { name }, { uid }).catch((error: unknown) => {
      if (!isStatus(error, 'NotFound') && !isStatus(error, 'Conflict')) throw error;
    });
  }
  const names = namespaces.map(({ metadata }) => metadata.name ?? '');
  return `${names.length} namespaces are being emptied: ${someOf(names)}`;
}

/**
 * Templates, waiting VMs and images. A node says that it has nothing more; one that is away has to
 * come back for that, or be deleted.
 */
async function removeFromNodes(context: DeletionContext): Promise<string | undefined> {
  const { client, tenant, has } = context;
  const { name = '' } = tenant.metadata;
  const allow = async (node: Node, value: string | null) => {
    const metadata = { annotations: { [allowanceAnnotation(name)]: value } };
    await client
      .patch(NODES, { name: node.metadata.name ?? '' }, 'merge', { metadata })
      .catch((error: unknown) => {
        if (!isStatus(error, 'NotFound')) throw error;
      });
  };
  const held = has.nodes.filter((node) => holdingsOf(node).has(name));
  for (const node of held) {
    if (allowancesOf(node).get(name) !== NOTHING) await allow(node, NOTHING);
  }
  if (held.length > 0) {
    const names = held.map(({ metadata }) => metadata.name ?? '');
    return `${held.length} nodes still have templates, waiting VMs or images: ${someOf(names)}`;
  }
  // A tenant of this name that is made later may have VMs wait again.
  for (const node of has.nodes) if (allowancesOf(node).has(name)) await allow(node, null);
  return undefined;
}

/** A project that was made for the tenant goes with it; one that was there before is left. */
async function removeIdentity({ identity, tenant }: DeletionContext): Promise<string | undefined> {
  if (!identity) return undefined;
  try {
    const project = await findProject(identity, tenant);
    if (!project) return undefined;
    if (isMadeFor(tenant, project)) await identity.deleteProject(project.id);
    else await revokeMembers(identity, tenant, project.id);
    return undefined;
  } catch (error) {
    if (error instanceof IdentityConflictError) return describeError(error);
    return outcomeOfError(error).finding.message;
  }
}

/** Also one that was made a moment before the process ended. */
async function findProject(
  identity: IdentityProvider,
  tenant: Tenant,
): Promise<IdentityProject | undefined> {
  const id = tenant.status?.projectID;
  if (id) return identity.getProject(id);
  const projects = await identity.listProjects();
  return projects.find((project) => isMadeFor(tenant, project));
}

/** Lets go. @returns what the server says is left; undefined when the tenant is gone */
export async function release(client: Client, { metadata }: Tenant): Promise<string | undefined> {
  const finalizers = (metadata.finalizers ?? []).filter((one) => one !== TENANT_FINALIZER);
  const { name = '', uid } = metadata;
  const body = { metadata: { uid, finalizers: finalizers.length > 0 ? finalizers : null } };
  try {
    await client.patch(TENANTS, { name }, 'merge', body);
    return undefined;
  } catch (error) {
    if (isStatus(error, 'NotFound')) return undefined;
    if (isStatus(error, 'Forbidden')) return describeError(error);
    throw error;
  }
}
