import { allowancesOf, holdingsOf } from '../../api/holdings.ts';
import type { IdentityProvider } from '../../api/identity.ts';
import { isStatus } from '../../api/status.ts';
import { PROJECT_DISABLED, TENANT_FINALIZER, TENANT_LABEL } from '../../api/tenancy.ts';
import type { Tenant, TenantMember, TenantPhase, TenantStatus } from '../../api/tenancy.ts';
import type { Namespace, Node, Pod } from '../../api/types.generated.ts';
import { runController } from '../../client/controller.ts';
import type { Informer } from '../../client/informer.ts';
import { NAMESPACES, NODES, PODS, TENANTS } from '../../client/resources.ts';
import { createWorkQueue } from '../../client/workqueue.ts';
import type { WorkQueue } from '../../client/workqueue.ts';
import type { ControllerContext } from '../common/context.ts';
import { isSameStatus } from '../common/status.ts';
import { conditionsOf, someOf } from './conditions.ts';
import type { Finding } from './conditions.ts';
import { release, removeBelongings } from './deletion.ts';
import { syncMembers } from './members.ts';
import { NO_IDENTITY, outcomeOfError, syncProject } from './project.ts';
import type { ProjectOutcome, Surroundings } from './project.ts';
import { isMarkedWrongly, judgeSuspension, markPods } from './suspension.ts';

/** Everything that no event tells of is looked at again this often. */
const RESYNC_MS = 5 * 60_000;
/** What may pass by itself: the identity service is away, a person is not known yet. */
const RETRY_MS = 10_000;
/** How soon a tenant that is not empty yet is looked at again, if nothing tells sooner. */
const RECHECK_MS = 2_000;
/** How soon a pod that stops is seen in the tenant's condition. */
const SETTLE_MS = 500;
const CONCURRENCY = 8;

const BY_TENANT = 'tenant';
const BY_PARENT = 'parent';
/** Nodes, by the tenants that they have something of or are told about. */
const BY_HELD = 'held';

interface IdentityState {
  outcome: ProjectOutcome;
  members: TenantMember[] | undefined;
  /** Of what the answer depends on: another one is asked for anew. */
  seen: string;
  dueMs: number;
}

/** What the controller knows, and where it takes it from. */
interface World {
  context: ControllerContext;
  identity: IdentityProvider | undefined;
  tenants: Informer<Tenant>;
  namespaces: Informer<Namespace>;
  pods: Informer<Pod>;
  nodes: Informer<Node>;
  queue: WorkQueue;
  /** What the identity service said last: it is not asked for every pod that changes. */
  identityStates: Map<string, IdentityState>;
  /** Whose a project is, from the moment that it is decided. */
  claims: Map<string, string>;
}

/**
 * Brings Tenants and the projects of the identity service together, stops what a suspended tenant
 * has, and takes a deleted one apart: in order, and to the end.
 *
 * @param identity absent: tenants are told by certificates' groups alone
 */
export function runTenantController(
  context: ControllerContext,
  { identity }: { identity?: IdentityProvider | undefined } = {},
): Promise<void> {
  const { informers, clock, log, signal } = context;
  const world: World = {
    ...{ context, identity },
    tenants: informers.informer(TENANTS),
    namespaces: informers.informer(NAMESPACES),
    pods: informers.informer(PODS),
    nodes: informers.informer(NODES),
    queue: createWorkQueue(clock),
    identityStates: new Map(),
    claims: new Map(),
  };
  follow(world);
  followNodes(world);
  if (identity) followProjects(world, identity);
  return runController({
    ...{ name: 'tenant', queue: world.queue, concurrency: CONCURRENCY, clock, log, signal },
    reconcile: (name) => reconcile(world, name),
    informers: [world.tenants, world.namespaces, world.pods, world.nodes],
  });
}

function follow({ tenants, namespaces, pods, queue, identityStates, claims }: World): void {
  const ownerOf = ({ metadata }: Namespace) => metadata.labels?.[TENANT_LABEL] ?? '';
  namespaces.addIndex(BY_TENANT, (namespace) => [ownerOf(namespace)]);
  tenants.addIndex(BY_PARENT, ({ spec }) => (spec.parent === undefined ? [] : [spec.parent]));
  const touch = ({ metadata, spec }: Tenant): void => {
    queue.add(metadata.name ?? '');
    if (spec.parent !== undefined) queue.add(spec.parent);
    for (const child of tenants.byIndex(BY_PARENT, metadata.name ?? '')) {
      queue.add(child.metadata.name ?? '');
    }
  };
  tenants.addHandler({
    add: touch,
    update: touch,
    delete(tenant) {
      const { name = '' } = tenant.metadata;
      identityStates.delete(name);
      for (const [project, owner] of claims) if (owner === name) claims.delete(project);
      touch(tenant);
    },
  });
  const touchOwner = (namespace: Namespace) => {
    if (ownerOf(namespace)) queue.add(ownerOf(namespace));
  };
  namespaces.addHandler({ add: touchOwner, update: touchOwner, delete: touchOwner });
  const touchOwnerOf = (pod: Pod): void => {
    const namespace = namespaces.get(undefined, pod.metadata.namespace ?? '');
    const tenant = namespace && tenants.get(undefined, ownerOf(namespace));
    if (!tenant) return;
    const isSuspended = tenant.status?.phase === 'Suspended';
    const isCalm =
      !isSuspended && !isMarkedWrongly(pod, false) && !tenant.metadata.deletionTimestamp;
    if (!isCalm) queue.addAfter(tenant.metadata.name ?? '', SETTLE_MS);
  };
  pods.addHandler({ add: touchOwnerOf, update: touchOwnerOf, delete: touchOwnerOf });
}

/** A tenant that is going is looked at when a node has, or says that it has no more of, anything. */
function followNodes({ tenants, nodes, queue }: World): void {
  const heldBy = (node: Node) => [
    ...new Set([...holdingsOf(node), ...allowancesOf(node)].map(([name]) => name)),
  ];
  nodes.addIndex(BY_HELD, heldBy);
  const touch = (node: Node, old?: Node): void => {
    for (const name of new Set([...heldBy(node), ...(old ? heldBy(old) : [])])) {
      if (tenants.get(undefined, name)?.metadata.deletionTimestamp) queue.add(name);
    }
  };
  nodes.addHandler({ add: touch, update: touch, delete: touch });
}

/** The tenants whose projects have changed are looked at, and no others: there may be thousands. */
function followProjects(world: World, identity: IdentityProvider): void {
  const { context, tenants, queue, identityStates } = world;
  let known = new Map<string, string>();
  const look = async (): Promise<void> => {
    const projects = await identity.listProjects().catch(() => []);
    const now = new Map(projects.map((project) => [project.id, JSON.stringify(project)]));
    for (const { metadata, spec } of tenants.list()) {
      const { name = '' } = metadata;
      const { projectID = '' } = spec;
      if (projectID && known.get(projectID) === now.get(projectID) && now.has(projectID)) continue;
      const state = identityStates.get(name);
      if (state) state.dueMs = 0;
      queue.add(name);
    }
    known = now;
  };
  let looking = Promise.resolve();
  identity.onProjectsChanged(() => {
    looking = looking.then(look);
  }, context.signal);
}

async function reconcile(world: World, name: string): Promise<void> {
  const tenant = world.tenants.get(undefined, name);
  if (!tenant) return;
  if (tenant.metadata.deletionTimestamp) return reconcileDeletion(world, tenant);
  const held = await hold(world, tenant);
  const state = await identityOf(world, held);
  const { outcome } = state;
  const adopted = await adopt(world, held, outcome);
  const pods = podsOf(world, name);
  const next = statusOf(world, adopted, state, pods);
  const current = await writeStatus(world, adopted, next);
  await markPods(world.context.client, world.context.clock, pods, next.phase === 'Suspended');
  const nowMs = world.context.clock.nowMs();
  if (current) world.queue.addAfter(name, Math.max(SETTLE_MS, state.dueMs - nowMs));
}

function podsOf(world: World, name: string): Pod[] {
  return world.namespaces
    .byIndex(BY_TENANT, name)
    .flatMap(({ metadata }) => world.pods.list(metadata.name ?? ''));
}

/** Tenants that were made before there was a finalizer, or that somebody has freed, get it. */
async function hold({ context }: World, tenant: Tenant): Promise<Tenant> {
  const { finalizers = [], name = '', uid } = tenant.metadata;
  if (finalizers.includes(TENANT_FINALIZER)) return tenant;
  const metadata = { uid, finalizers: [...finalizers, TENANT_FINALIZER] };
  return context.client.patch(TENANTS, { name }, 'merge', { metadata });
}

// --- Identity ----------------------------------------------------------------------------------

/** What the identity service says, asked again when the tenant has changed or it is due. */
async function identityOf(world: World, tenant: Tenant): Promise<IdentityState> {
  const { identity, identityStates, context } = world;
  const { name = '', uid, generation } = tenant.metadata;
  const nowMs = context.clock.nowMs();
  const around = surroundings(world, tenant);
  const seen = JSON.stringify([uid, generation, around.parent?.status?.projectID]);
  const known = identityStates.get(name);
  if (known && known.seen === seen && known.dueMs > nowMs) return known;
  const state: IdentityState = {
    outcome: NO_IDENTITY,
    members: tenant.status?.members,
    seen,
    dueMs: nowMs + RESYNC_MS,
  };
  if (identity) {
    try {
      state.outcome = await syncProject(identity, tenant, around);
      if (state.outcome.finding.status === 'True') await applyMembers(world, tenant, state);
    } catch (error) {
      state.outcome = lastKnown(tenant, outcomeOfError(error));
    }
  }
  if (state.outcome.isPassing) state.dueMs = nowMs + RETRY_MS;
  identityStates.set(name, state);
  return state;
}

/**
 * What was certain before the identity service went away is so until it is back; above all, a
 * disabled project's pods do not start again because nobody can be asked.
 */
function lastKnown({ status }: Tenant, outcome: ProjectOutcome): ProjectOutcome {
  const before = status?.conditions?.find(({ type }) => type === outcome.finding.type);
  const isDisabled = before?.reason === PROJECT_DISABLED;
  const finding = isDisabled
    ? { ...outcome.finding, status: before.status, reason: before.reason }
    : outcome.finding;
  return { ...outcome, finding, ...(status?.projectID ? { projectId: status.projectID } : {}) };
}

function surroundings({ tenants, claims }: World, tenant: Tenant): Surroundings {
  const { parent } = tenant.spec;
  const { name = '' } = tenant.metadata;
  const isOther = (other: string) => other !== name && tenants.get(undefined, other) !== undefined;
  return {
    parent: parent === undefined ? undefined : tenants.get(undefined, parent),
    ownerOf(projectId) {
      const claimed = claims.get(projectId);
      if (claimed !== undefined) return isOther(claimed) ? claimed : undefined;
      const owners = tenants.list().filter(({ status }) => status?.projectID === projectId);
      return owners.map(({ metadata }) => metadata.name ?? '').find(isOther);
    },
    claim: (projectId) => void claims.set(projectId, name),
  };
}

async function applyMembers(world: World, tenant: Tenant, state: IdentityState): Promise<void> {
  const { identity, context } = world;
  const { projectId = '' } = state.outcome;
  if (!identity) return;
  const remember = async (members: TenantMember[]): Promise<void> => {
    await patchStatus(context, tenant, { members });
  };
  const { members, unknown } = await syncMembers(identity, tenant, projectId, remember);
  state.members = members;
  if (unknown.length === 0) return;
  const message = `the identity service does not know ${someOf(unknown)}`;
  const finding: Finding = {
    ...{ type: 'IdentitySynced', status: 'False', reason: 'MemberNotFound', message },
  };
  state.outcome = { ...state.outcome, finding, isPassing: true };
}

/** The project becomes the tenant's, once and for all. */
async function adopt(world: World, tenant: Tenant, { projectId }: ProjectOutcome): Promise<Tenant> {
  if (projectId === undefined || tenant.spec.projectID) return tenant;
  const { name = '', uid } = tenant.metadata;
  const body = { metadata: { uid }, spec: { projectID: projectId } };
  return world.context.client.patch(TENANTS, { name }, 'merge', body);
}

// --- Status ------------------------------------------------------------------------------------

function chainOf({ tenants }: World, tenant: Tenant): Tenant[] {
  const chain = [tenant];
  for (let next = tenant.spec.parent; next !== undefined;) {
    const above = tenants.get(undefined, next);
    if (!above || chain.includes(above)) break;
    chain.push(above);
    next = above.spec.parent;
  }
  return chain;
}

function statusOf(world: World, tenant: Tenant, state: IdentityState, pods: Pod[]): TenantStatus {
  const { identity, namespaces, context } = world;
  const { outcome, members } = state;
  const nowMs = context.clock.nowMs();
  // Whether the project is disabled is told by the condition that is about to be written.
  const identityCondition = conditionsOf(tenant, [outcome.finding], nowMs);
  const [, ...above] = chainOf(world, tenant);
  const seen = { ...tenant, status: { ...tenant.status, conditions: identityCondition } };
  const suspension = judgeSuspension([seen, ...above], pods);
  const isSuspended = suspension.status === 'True';
  const isReady = !identity || outcome.projectId !== undefined;
  const phase: TenantPhase = isSuspended ? 'Suspended' : isReady ? 'Active' : 'Pending';
  const ready: Finding = {
    type: 'Ready',
    status: phase === 'Active' ? 'True' : 'False',
    reason: phase === 'Active' ? 'Ready' : isSuspended ? suspension.reason : outcome.finding.reason,
    message: phase === 'Active' ? '' : isSuspended ? suspension.message : outcome.finding.message,
  };
  return {
    phase,
    ...(outcome.projectId === undefined ? {} : { projectID: outcome.projectId }),
    namespaceCount: namespaces.byIndex(BY_TENANT, tenant.metadata.name ?? '').length,
    ...(members?.length ? { members } : {}),
    conditions: conditionsOf(tenant, [ready, outcome.finding, suspension], nowMs),
  };
}

/** Writes what differs; the quota's part is the server's. @returns undefined when the tenant is gone */
async function writeStatus(
  { context }: World,
  tenant: Tenant,
  next: TenantStatus,
): Promise<Tenant | undefined> {
  const { quota: _, ...known } = tenant.status ?? {};
  if (isSameStatus(known, next)) return tenant;
  return patchStatus(context, tenant, { members: null, ...next });
}

async function patchStatus(
  { client }: ControllerContext,
  { metadata }: Tenant,
  status: object,
): Promise<Tenant | undefined> {
  const { name = '', uid } = metadata;
  try {
    const body = { metadata: { uid }, status };
    return await client.patch(TENANTS, { name }, 'merge', body, { subresource: 'status' });
  } catch (error) {
    if (isStatus(error, 'NotFound')) return undefined;
    throw error;
  }
}

// --- Deletion ----------------------------------------------------------------------------------

async function reconcileDeletion(world: World, tenant: Tenant): Promise<void> {
  const { context, identity, queue, tenants, namespaces, nodes } = world;
  const { client, clock } = context;
  const { name = '', finalizers = [] } = tenant.metadata;
  if (!finalizers.includes(TENANT_FINALIZER)) return;
  const has = {
    subTenants: tenants.byIndex(BY_PARENT, name),
    pods: podsOf(world, name),
    namespaces: namespaces.byIndex(BY_TENANT, name),
    nodes: nodes.byIndex(BY_HELD, name),
  };
  const { findings, isEmpty } = await removeBelongings({ client, identity, tenant, has });
  const ready: Finding = {
    ...{ type: 'Ready', status: 'False', reason: 'Terminating' },
    message: 'the tenant is being deleted',
  };
  // Written before the last look: every write that was on its way before is in the store then.
  await writeStatus(world, tenant, {
    phase: 'Terminating',
    ...lastStatus(tenant),
    namespaceCount: has.namespaces.length,
    conditions: conditionsOf(tenant, [ready, ...findings], clock.nowMs()),
  });
  if (!isEmpty) return queue.addAfter(name, RECHECK_MS);
  const left = await release(client, tenant);
  if (left === undefined) return;
  const remaining: Finding = {
    ...{ type: 'ObjectsRemaining', status: 'True', reason: 'StoreIsNotEmpty', message: left },
  };
  await writeStatus(world, tenant, {
    phase: 'Terminating',
    ...lastStatus(tenant),
    namespaceCount: has.namespaces.length,
    conditions: conditionsOf(tenant, [ready, ...findings, remaining], clock.nowMs()),
  });
  queue.addAfter(name, RECHECK_MS);
}

function lastStatus({ status }: Tenant): TenantStatus {
  return {
    ...(status?.projectID ? { projectID: status.projectID } : {}),
    ...(status?.members?.length ? { members: status.members } : {}),
  };
}
