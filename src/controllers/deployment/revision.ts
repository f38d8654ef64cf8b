import { isDeepStrictEqual } from 'node:util';
import type { Deployment, ReplicaSet } from '../../api/types.generated.ts';
import { isStatus } from '../../api/status.ts';
import { describeError } from '../../base/log.ts';
import { DEPLOYMENTS, REPLICA_SETS } from '../../client/resources.ts';
import type { ControllerContext } from '../common/context.ts';
import { controllerOf, controllerReference } from '../common/ownership.ts';
import { templateHash } from '../common/template-hash.ts';
import {
  DESIRED_REPLICAS,
  findNewSet,
  HASH_LABEL,
  limitsOf,
  MAX_REPLICAS,
  REVISION,
  REVISION_HISTORY,
  revisionOf,
  wanted,
} from './replicasets.ts';
import { hasDeadline, withCondition } from './status.ts';

/** Annotations of a Deployment that say nothing about its ReplicaSets. */
const NOT_COPIED = new Set([
  'kubectl.kubernetes.io/last-applied-configuration',
  REVISION,
  REVISION_HISTORY,
  DESIRED_REPLICAS,
  MAX_REPLICAS,
  'deprecated.deployment.rollback.to',
]);

const HISTORY_LIMIT_BYTES = 2000;

/** The sizes that proportional scaling goes by. */
export function annotationsFor(deployment: Deployment): Record<string, string> {
  const total = wanted(deployment);
  return {
    [DESIRED_REPLICAS]: String(total),
    [MAX_REPLICAS]: String(total + limitsOf(deployment).surge),
  };
}

function copiedAnnotations(deployment: Deployment): Record<string, string> {
  const entries = Object.entries(deployment.metadata.annotations ?? {});
  return Object.fromEntries(entries.filter(([name]) => !NOT_COPIED.has(name)));
}

/** A set that is taken up again, as by `rollout undo`, gets the newest revision. */
function revisedAnnotations(
  deployment: Deployment,
  set: ReplicaSet,
  revision: number,
): Record<string, string> {
  const known = set.metadata.annotations ?? {};
  const next = { ...known, ...copiedAnnotations(deployment) };
  const before = revisionOf(set);
  if (before >= revision) return next;
  next[REVISION] = String(revision);
  if (before > 0) {
    const history = [...(known[REVISION_HISTORY] ?? '').split(',').filter(Boolean), `${before}`];
    while (history.join(',').length > HISTORY_LIMIT_BYTES) history.shift();
    next[REVISION_HISTORY] = history.join(',');
  }
  return next;
}

/** Brings the annotations and minReadySeconds of the set with the current template up to date. */
export async function updateNewSet(
  { client }: ControllerContext,
  deployment: Deployment,
  set: ReplicaSet,
  revision: number,
): Promise<ReplicaSet> {
  const annotations = revisedAnnotations(deployment, set, revision);
  const minReadySeconds = deployment.spec?.minReadySeconds ?? 0;
  const isSame =
    isDeepStrictEqual(annotations, set.metadata.annotations ?? {}) &&
    (set.spec?.minReadySeconds ?? 0) === minReadySeconds;
  if (isSame) return set;
  return client.update(REPLICA_SETS, {
    ...set,
    metadata: { ...set.metadata, annotations },
    spec: { ...set.spec, minReadySeconds } as ReplicaSet['spec'],
  });
}

/**
 * Makes the ReplicaSet of the current template.
 * @returns undefined when its name was taken by another template; the next try has a new name
 */
export async function createNewSet(
  context: ControllerContext,
  deployment: Deployment,
  revision: number,
  replicas: number,
): Promise<ReplicaSet | undefined> {
  const { client, events, informers } = context;
  const draft = draftSet(deployment, revision, replicas);
  try {
    const made = await client.create(REPLICA_SETS, draft);
    if (replicas > 0) {
      const message = `Scaled up replica set ${made.metadata.name} from 0 to ${replicas}`;
      events.event(deployment, 'Normal', 'ScalingReplicaSet', message);
    }
    return made;
  } catch (error) {
    if (!isStatus(error, 'AlreadyExists')) {
      await recordFailure(context, deployment, draft, error);
      throw error;
    }
  }
  const { namespace, name = '' } = draft.metadata;
  const existing = await client.get(REPLICA_SETS, { namespace, name });
  const isOwn = controllerOf(existing)?.uid === deployment.metadata.uid;
  // Made by an earlier step whose echo has not arrived.
  if (isOwn && findNewSet(deployment, [existing])) return existing;
  const collisionCount = (deployment.status?.collisionCount ?? 0) + 1;
  const known = informers.informer(DEPLOYMENTS).get(namespace, deployment.metadata.name ?? '');
  const current = known ?? deployment;
  const status = { ...current.status, collisionCount };
  await client.updateStatus(DEPLOYMENTS, { ...current, status });
  return undefined;
}

function draftSet(deployment: Deployment, revision: number, replicas: number): ReplicaSet {
  const { metadata, spec } = deployment;
  const hash = templateHash(spec?.template, deployment.status?.collisionCount);
  const template = spec?.template;
  const labels = { ...template?.metadata?.labels, [HASH_LABEL]: hash };
  const selector = {
    ...spec?.selector,
    matchLabels: { ...spec?.selector.matchLabels, [HASH_LABEL]: hash },
  };
  return {
    apiVersion: 'apps/v1',
    kind: 'ReplicaSet',
    metadata: {
      name: `${metadata.name}-${hash}`,
      namespace: metadata.namespace,
      labels,
      annotations: {
        ...copiedAnnotations(deployment),
        ...annotationsFor(deployment),
        [REVISION]: String(revision),
      },
      ownerReferences: [controllerReference(DEPLOYMENTS, deployment)],
    },
    spec: {
      replicas,
      ...(spec?.minReadySeconds ? { minReadySeconds: spec.minReadySeconds } : {}),
      selector,
      template: { ...template, metadata: { ...template?.metadata, labels } },
    },
  };
}

async function recordFailure(
  { client, clock, events }: ControllerContext,
  deployment: Deployment,
  draft: ReplicaSet,
  error: unknown,
): Promise<void> {
  const subject = `new replica set "${draft.metadata.name}"`;
  const message = `Failed to create ${subject}: ${describeError(error)}`;
  events.event(deployment, 'Warning', 'ReplicaSetCreateError', message);
  if (!hasDeadline(deployment)) return;
  const condition = {
    type: 'Progressing',
    status: 'False',
    reason: 'ReplicaSetCreateError',
    message,
  };
  const conditions = withCondition(deployment.status?.conditions, condition, clock.nowMs());
  const status = { ...deployment.status, conditions };
  await client.updateStatus(DEPLOYMENTS, { ...deployment, status });
}
