import type { Deployment, ReplicaSet } from '../../api/types.generated.ts';
import { matchesLabelSelector } from '../../api/selectors.ts';
import { runController } from '../../client/controller.ts';
import { objectKey } from '../../client/informer.ts';
import { DEPLOYMENTS, PODS, REPLICA_SETS } from '../../client/resources.ts';
import { createWorkQueue } from '../../client/workqueue.ts';
import type { ControllerContext } from '../common/context.ts';
import { splitKey } from '../common/context.ts';
import { claim, controllerOf, indexByController } from '../common/ownership.ts';
import { syncDeployment } from './rollout.ts';

const CONCURRENCY = 5;

/** Replaces the pods of Deployments by new ones, by way of ReplicaSets. */
export function runDeploymentController(context: ControllerContext): Promise<void> {
  const { informers, clock, log, signal, client } = context;
  const deployments = informers.informer(DEPLOYMENTS);
  const replicaSets = informers.informer(REPLICA_SETS);
  const pods = informers.informer(PODS);
  indexByController(replicaSets);
  indexByController(pods);
  const queue = createWorkQueue(clock);
  const enqueueOwner = (set: ReplicaSet): void => {
    const owner = controllerOf(set);
    if (owner?.kind === DEPLOYMENTS.kind) queue.add(`${set.metadata.namespace}/${owner.name}`);
    if (owner) return;
    for (const deployment of deployments.list(set.metadata.namespace ?? '')) {
      const isMatch = matchesLabelSelector(deployment.spec?.selector, set.metadata.labels);
      if (isMatch) queue.add(objectKey(deployment));
    }
  };
  deployments.addHandler({
    add: (deployment) => queue.add(objectKey(deployment)),
    update: (deployment) => queue.add(objectKey(deployment)),
  });
  replicaSets.addHandler({
    add: enqueueOwner,
    update(set, previous) {
      if (controllerOf(previous)?.uid !== controllerOf(set)?.uid) enqueueOwner(previous);
      enqueueOwner(set);
    },
    delete: enqueueOwner,
  });
  pods.addHandler({
    // A Deployment that recreates waits for the last old pod to go.
    delete(pod) {
      const set = controllerOf(pod);
      if (set?.kind !== REPLICA_SETS.kind) return;
      const parent = replicaSets.get(pod.metadata.namespace, set.name);
      if (parent) enqueueOwner(parent);
    },
  });
  const reconcile = async (key: string): Promise<void> => {
    const { namespace, name } = splitKey(key);
    const deployment = deployments.get(namespace, name);
    if (!deployment) return;
    if (selectsEverything(deployment)) {
      const message = 'This deployment is selecting all pods. A non-empty selector is required.';
      context.events.event(deployment, 'Warning', 'SelectingAll', message);
      return;
    }
    const sets = await claim({
      client,
      owner: deployment,
      ownerResource: DEPLOYMENTS,
      selector: deployment.spec?.selector,
      informer: replicaSets,
    });
    const requeueMs = await syncDeployment(context, deployment, sets);
    if (requeueMs !== undefined) queue.addAfter(key, requeueMs);
  };
  return runController({
    name: 'deployment',
    queue,
    reconcile,
    informers: [deployments, replicaSets, pods],
    concurrency: CONCURRENCY,
    clock,
    log,
    signal,
  });
}

function selectsEverything({ spec }: Deployment): boolean {
  const { matchLabels = {}, matchExpressions = [] } = spec?.selector ?? {};
  return Object.keys(matchLabels).length === 0 && matchExpressions.length === 0;
}
