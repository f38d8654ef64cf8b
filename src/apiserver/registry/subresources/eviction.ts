import { rfc3339 } from '../../../base/clock.ts';
import type { KubeObject } from '../../../api/object.ts';
import { matchesLabelSelector } from '../../../api/selectors.ts';
import type { LabelSelectorObject } from '../../../api/selectors.ts';
import { StatusError } from '../../../api/status.ts';
import { optionType, readObject } from '../../codec/decode.ts';
import { jsonReply } from '../../codec/reply.ts';
import type { ResourceContext } from '../../context.ts';
import type { ApiReply } from '../../server/exchange.ts';
import { deleteObject } from '../delete.ts';
import type { DeleteOptions } from '../delete.ts';
import { requireEntry } from '../get.ts';
import { checkIdentity } from '../metadata.ts';
import { podSpec } from '../strategies/pod.ts';
import { updateObject } from '../update.ts';
import { cloneObject } from '../resource.ts';
import { parseDryRun } from '../write.ts';

const FINISHED_PHASES = new Set(['Succeeded', 'Failed']);
const RETRY_SECONDS = 10;

/** POST of `pods/{name}/eviction`: a deletion that a disruption budget may forbid for now. */
export async function handleEviction(context: ResourceContext): Promise<ApiReply> {
  const { server, info, row, exchange } = context;
  const expected = optionType(server.schema, 'policy', 'v1', 'Eviction');
  const eviction = await readObject(context, { ...expected, alsoAs: ['policy/v1beta1'] });
  checkIdentity(eviction, info.namespace, info.name);
  await server.store.barrier();
  const entry = requireEntry(context);
  const options = (eviction.deleteOptions ?? {}) as DeleteOptions;
  const dryRun = parseDryRun(exchange.query.getAll('dryRun')) || parseDryRun(options.dryRun ?? []);
  if (countsAsDisruption(entry.object)) await takeDisruption(context, entry.object, dryRun);
  const target = {
    context,
    row,
    subresource: '',
    namespace: info.namespace,
    name: info.name,
    dryRun,
  };
  const uid = options.preconditions?.uid ?? entry.object.metadata.uid;
  await deleteObject(target, { ...options, preconditions: { ...options.preconditions, uid } });
  const success = { kind: 'Status', apiVersion: 'v1', metadata: {}, status: 'Success', code: 201 };
  return jsonReply(201, success);
}

/** What does not run, or is on its way out, can be no further loss. */
function countsAsDisruption(pod: KubeObject): boolean {
  const { phase = '' } = (pod.status ?? {}) as { phase?: string };
  if (pod.metadata.deletionTimestamp || FINISHED_PHASES.has(phase)) return false;
  return phase !== 'Pending' || Boolean(podSpec(pod).nodeName);
}

interface BudgetStatus {
  currentHealthy?: number;
  desiredHealthy?: number;
  disruptionsAllowed?: number;
  disruptedPods?: Record<string, string>;
  observedGeneration?: number;
}

async function takeDisruption(
  context: ResourceContext,
  pod: KubeObject,
  dryRun: boolean,
): Promise<void> {
  const { server, info } = context;
  const budgets = server.store
    .list('policy/poddisruptionbudgets', { namespace: info.namespace })
    .entries.filter(({ object }) => {
      const { selector } = (object.spec ?? {}) as { selector?: LabelSelectorObject };
      return matchesLabelSelector(selector, pod.metadata.labels);
    });
  if (budgets.length === 0) return;
  if (budgets.length > 1) {
    const message =
      'This pod has more than one PodDisruptionBudget, ' +
      'which the eviction subresource does not support.';
    throw new StatusError('InternalError', message);
  }
  const row = server.schema.byResource('policy', 'v1', 'poddisruptionbudgets');
  const name = budgets[0]?.key.name ?? '';
  if (!row) return;
  const about = { context, row, subresource: 'status', namespace: info.namespace, name, dryRun };
  // The budget is charged before the pod goes: of two evictions at once, one sees nothing left.
  await updateObject(about, (budget) => chargeBudget(budget, pod, server.clock.nowMs()));
}

function chargeBudget(budget: KubeObject, pod: KubeObject, nowMs: number): KubeObject {
  const status = (budget.status ?? {}) as BudgetStatus;
  const { name: budgetName } = budget.metadata;
  const { disruptionsAllowed = 0, desiredHealthy = 0, currentHealthy = 0 } = status;
  const isNew = (status.observedGeneration ?? 0) < (budget.metadata.generation ?? 0);
  // A pod that is not healthy anyway is no loss to a budget that is kept without it.
  const isKeptWithout = desiredHealthy > 0 && currentHealthy >= desiredHealthy;
  if (!isNew && !isReady(pod) && (isKeptWithout || evictsUnhealthy(budget))) return budget;
  if (isNew || disruptionsAllowed <= 0) {
    const message = "Cannot evict pod as it would violate the pod's disruption budget.";
    const cause = {
      reason: 'DisruptionBudget',
      message: isNew
        ? `The disruption budget ${budgetName} is still being processed by the server.`
        : `The disruption budget ${budgetName} needs ${desiredHealthy} healthy pods ` +
          `and has ${currentHealthy} currently`,
    };
    throw new StatusError('TooManyRequests', message, {
      // Clients wait in silence where they are told for how long, and say so where they are not.
      details: { causes: [cause], ...(isNew ? { retryAfterSeconds: RETRY_SECONDS } : {}) },
    });
  }
  const draft = cloneObject(budget);
  draft.status = {
    ...status,
    disruptionsAllowed: disruptionsAllowed - 1,
    disruptedPods: {
      ...status.disruptedPods,
      [pod.metadata.name ?? '']: rfc3339(nowMs),
    },
  };
  return draft;
}

function isReady(pod: KubeObject): boolean {
  const { conditions = [] } = (pod.status ?? {}) as {
    conditions?: { type: string; status: string }[];
  };
  return conditions.some(({ type, status }) => type === 'Ready' && status === 'True');
}

function evictsUnhealthy(budget: KubeObject): boolean {
  const { unhealthyPodEvictionPolicy: policy } = (budget.spec ?? {}) as Record<string, unknown>;
  return policy === 'AlwaysAllow';
}
