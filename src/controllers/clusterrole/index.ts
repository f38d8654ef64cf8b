import { isDeepStrictEqual } from 'node:util';
import { matchesLabelSelector } from '../../api/selectors.ts';
import type { ClusterRole } from '../../api/types.generated.ts';
import { runController } from '../../client/controller.ts';
import { CLUSTER_ROLES } from '../../client/resources.ts';
import { createWorkQueue } from '../../client/workqueue.ts';
import type { ControllerContext } from '../common/context.ts';

/** Fills ClusterRoles that aggregate others with the rules of those that their selectors match. */
export function runClusterRoleController(context: ControllerContext): Promise<void> {
  const { client, informers, clock, log, signal } = context;
  const roles = informers.informer(CLUSTER_ROLES);
  const queue = createWorkQueue(clock);
  const enqueueAggregating = (): void => {
    for (const role of roles.list()) if (role.aggregationRule) queue.add(role.metadata.name ?? '');
  };
  roles.addHandler({
    add: enqueueAggregating,
    update: enqueueAggregating,
    delete: enqueueAggregating,
  });
  const reconcile = async (name: string): Promise<void> => {
    const role = roles.get(undefined, name);
    if (!role?.aggregationRule) return;
    const rules = aggregate(role, roles.list());
    if (isDeepStrictEqual(rules, role.rules ?? [])) return;
    await client.update(CLUSTER_ROLES, { ...role, rules });
  };
  return runController({
    name: 'clusterrole-aggregation',
    queue,
    reconcile,
    informers: [roles],
    concurrency: 1,
    clock,
    log,
    signal,
  });
}

/** The rules of all roles matched, by name, each rule once. */
export function aggregate(
  role: ClusterRole,
  all: ClusterRole[],
): NonNullable<ClusterRole['rules']> {
  const selectors = role.aggregationRule?.clusterRoleSelectors ?? [];
  const rules = new Map<string, NonNullable<ClusterRole['rules']>[number]>();
  const matched = all
    .filter(({ metadata }) => metadata.name !== role.metadata.name)
    .filter(({ metadata }) =>
      selectors.some((selector) => matchesLabelSelector(selector, metadata.labels)),
    )
    .sort((a, b) => ((a.metadata.name ?? '') < (b.metadata.name ?? '') ? -1 : 1));
  for (const rule of matched.flatMap((candidate) => candidate.rules ?? [])) {
    rules.set(JSON.stringify(rule), rule);
  }
  return [...rules.values()];
}
