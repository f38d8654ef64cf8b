import { isStatus } from '../../api/status.ts';
import type {
  ControllerRevision,
  StatefulSet,
  StatefulSetStatus,
} from '../../api/types.generated.ts';
import { runController } from '../../client/controller.ts';
import { objectKey } from '../../client/informer.ts';
import {
  CONTROLLER_REVISIONS,
  PERSISTENT_VOLUME_CLAIMS,
  PODS,
  STATEFUL_SETS,
} from '../../client/resources.ts';
import { createWorkQueue } from '../../client/workqueue.ts';
import type { ControllerContext } from '../common/context.ts';
import { splitKey } from '../common/context.ts';
import { createExpectations } from '../common/expectations.ts';
import type { Expectations } from '../common/expectations.ts';
import {
  currentRevision,
  hashOf,
  listRevisions,
  templateOf,
  trimRevisions,
} from '../common/history.ts';
import { claim, indexByController } from '../common/ownership.ts';
import { createPods, deletePods } from '../common/pod-control.ts';
import { followOwners, followPods } from '../common/pod-events.ts';
import { isReady, untilAvailableMs } from '../common/pods.ts';
import { isSameStatus, withoutZeros } from '../common/status.ts';
import { claimsOf, ordinalOf, replicaOf } from './identity.ts';
import { isAvailable, planStep } from './plan.ts';
import type { View } from './plan.ts';

const CONCURRENCY = 5;

/** Keeps replicas with names and volumes of their own, in their order. */
export function runStatefulSetController(context: ControllerContext): Promise<void> {
  const { informers, clock, log, signal } = context;
  const sets = informers.informer(STATEFUL_SETS);
  const pods = informers.informer(PODS);
  const revisions = informers.informer(CONTROLLER_REVISIONS);
  indexByController(revisions);
  const queue = createWorkQueue(clock);
  const expectations = createExpectations(clock);
  followOwners(sets, queue, expectations);
  followPods({ pods, owners: sets, queue, expectations });
  const reconcile = async (key: string): Promise<void> => {
    const { namespace, name } = splitKey(key);
    const set = sets.get(namespace, name);
    if (!set || set.metadata.deletionTimestamp) return;
    const requeueMs = await sync(context, expectations, set);
    if (requeueMs !== undefined) queue.addAfter(key, requeueMs);
  };
  return runController({
    ...{ name: 'statefulset', queue, reconcile, clock, log, signal, concurrency: CONCURRENCY },
    informers: [sets, pods, revisions],
  });
}

/** @returns after how long to look again, as a pod becomes available by mere time */
async function sync(
  context: ControllerContext,
  expectations: Expectations,
  set: StatefulSet,
): Promise<number | undefined> {
  const { client, clock, informers } = context;
  const isSatisfied = expectations.isSatisfied(objectKey(set));
  const pods = await claim({
    ...{ client, owner: set, ownerResource: STATEFUL_SETS, selector: set.spec?.selector },
    informer: informers.informer(PODS),
    // A pod of another name could never be one of its replicas.
    mayAdopt: (pod) => ordinalOf(set, pod) !== undefined,
  });
  const revisions = await listRevisions(context, STATEFUL_SETS, set);
  const update = await currentRevision(context, STATEFUL_SETS, set, revisions);
  if (!update) return undefined;
  const named = revisions.find(({ metadata }) => metadata.name === set.status?.currentRevision);
  const current = named ?? update;
  const view: View = {
    ...{ set, pods, nowMs: clock.nowMs() },
    currentRevision: current.metadata.name ?? '',
    updateRevision: update.metadata.name ?? '',
  };
  if (isSatisfied) await act(context, expectations, view, [current, update]);
  await writeStatus(context, view);
  const live = new Set([view.currentRevision, view.updateRevision, ...pods.map(hashOf)]);
  await trimRevisions(context, set, revisions, ({ metadata }) => live.has(metadata.name));
  const minReadySeconds = set.spec?.minReadySeconds ?? 0;
  const waits = pods.map((pod) => untilAvailableMs(pod, minReadySeconds, view.nowMs));
  const soonest = Math.min(...waits.flatMap((wait) => wait || []));
  return Number.isFinite(soonest) ? soonest : undefined;
}

async function act(
  context: ControllerContext,
  expectations: Expectations,
  view: View,
  revisions: ControllerRevision[],
): Promise<void> {
  const { set } = view;
  const { create, remove } = planStep(view);
  const fresh = create.map(({ ordinal, revision }) => {
    const found = revisions.find(({ metadata }) => metadata.name === revision);
    const template = (found && templateOf(found)) ?? set.spec?.template ?? {};
    return replicaOf(set, template, ordinal, revision);
  });
  await deletePods(context, expectations, set, remove);
  for (const { ordinal } of create) await ensureClaims(context, set, ordinal);
  await createPods(context, expectations, set, fresh);
}

/** What is there already is used as it is. */
async function ensureClaims(
  { client, events }: ControllerContext,
  set: StatefulSet,
  ordinal: number,
): Promise<void> {
  for (const wanted of claimsOf(set, ordinal)) {
    try {
      const { metadata } = await client.create(PERSISTENT_VOLUME_CLAIMS, wanted);
      events.event(set, 'Normal', 'SuccessfulCreate', `Created claim: ${metadata.name}`);
    } catch (error) {
      if (!isStatus(error, 'AlreadyExists')) throw error;
    }
  }
}

async function writeStatus({ client }: ControllerContext, view: View): Promise<void> {
  const { set, pods, updateRevision } = view;
  const staying = pods.filter(({ metadata }) => !metadata.deletionTimestamp);
  const countOf = (revision: string) => staying.filter((pod) => hashOf(pod) === revision).length;
  const wanted = set.spec?.replicas ?? 1;
  const readyReplicas = staying.filter(isReady).length;
  const updatedReplicas = countOf(updateRevision);
  const isRolling = set.spec?.updateStrategy?.type !== 'OnDelete';
  const isUpdated =
    isRolling && [pods.length, readyReplicas, updatedReplicas].every((count) => count === wanted);
  // An update that is complete becomes what the next one starts from.
  const currentRevision = isUpdated ? updateRevision : view.currentRevision;
  const { collisionCount, conditions } = set.status ?? {};
  const status: StatefulSetStatus = {
    replicas: pods.length,
    readyReplicas,
    availableReplicas: staying.filter((pod) => isAvailable(view, pod)).length,
    currentReplicas: countOf(currentRevision),
    updatedReplicas,
    ...{ currentRevision, updateRevision },
    ...(collisionCount === undefined ? {} : { collisionCount }),
    ...(conditions ? { conditions } : {}),
    observedGeneration: set.metadata.generation,
  };
  if (isSameStatus(set.status, status)) return;
  const shown = withoutZeros(status, ['replicas', 'availableReplicas', 'collisionCount']);
  await client.updateStatus(STATEFUL_SETS, { ...set, status: shown });
}
