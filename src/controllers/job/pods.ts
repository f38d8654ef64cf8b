import type { Container, Job, Pod } from '../../api/types.generated.ts';
import { JOBS } from '../../client/resources.ts';
import { isTerminal, podFromTemplate } from '../common/pods.ts';
import { INDEX_ANNOTATION } from './indexes.ts';

/** Keeps a pod until its end has been counted. */
export const TRACKING_FINALIZER = 'batch.kubernetes.io/job-tracking';
const INDEX_VARIABLE = 'JOB_COMPLETION_INDEX';
/** Of a name that is generated, without its random end. */
const NAME_PREFIX_LENGTH_MAX = 63 - 5;

export const isTracked = ({ metadata }: Pod): boolean =>
  metadata.finalizers?.includes(TRACKING_FINALIZER) ?? false;

export const isIndexed = ({ spec }: Job): boolean => spec?.completionMode === 'Indexed';

/** Whether a pod that is being deleted is replaced, and counted as failed, before it has ended. */
export const waitsForEnd = ({ spec }: Job): boolean =>
  spec?.podReplacementPolicy === 'Failed' || spec?.podFailurePolicy !== undefined;

export const hasSucceeded = (pod: Pod): boolean => pod.status?.phase === 'Succeeded';

export function hasFailed(pod: Pod, job: Job): boolean {
  if (pod.status?.phase === 'Failed') return true;
  if (waitsForEnd(job)) return false;
  return pod.metadata.deletionTimestamp !== undefined && !hasSucceeded(pod);
}

export const isTerminating = (pod: Pod): boolean =>
  pod.metadata.deletionTimestamp !== undefined && !isTerminal(pod);

/** How often the containers of a pod were started again. */
export function restartsOf({ status }: Pod): number {
  const all = [...(status?.initContainerStatuses ?? []), ...(status?.containerStatuses ?? [])];
  return all.reduce((sum, { restartCount }) => sum + restartCount, 0);
}

/** When a pod ended, in milliseconds since 1970, from what its node or its deletion says. */
export function finishedAtMs({ metadata, status }: Pod, nowMs: number): number {
  const times = (status?.containerStatuses ?? []).map(({ state }) =>
    Date.parse(state?.terminated?.finishedAt ?? ''),
  );
  const known = times.filter((timeMs) => !Number.isNaN(timeMs));
  if (known.length > 0) return Math.max(...known);
  const deletedMs = Date.parse(metadata.deletionTimestamp ?? '');
  return Number.isNaN(deletedMs) ? nowMs : deletedMs;
}

/** A pod for the Job, for one index when it is indexed. */
export function podOf(job: Job, index: number | undefined): Pod {
  const pod = podFromTemplate(job.spec?.template, job, JOBS);
  pod.metadata.finalizers = [...(pod.metadata.finalizers ?? []), TRACKING_FINALIZER];
  if (index === undefined) return pod;
  const { name = '' } = job.metadata;
  const suffix = `-${index}-`;
  const prefix = name.slice(0, NAME_PREFIX_LENGTH_MAX - suffix.length);
  pod.metadata.generateName = `${prefix}${suffix}`;
  const mark = { [INDEX_ANNOTATION]: String(index) };
  pod.metadata.annotations = { ...pod.metadata.annotations, ...mark };
  pod.metadata.labels = { ...pod.metadata.labels, ...mark };
  if (!pod.spec) return pod;
  const { containers, initContainers } = pod.spec;
  pod.spec = {
    ...pod.spec,
    hostname: pod.spec.hostname ?? `${name}-${index}`,
    containers: containers.map(withIndex),
    ...(initContainers ? { initContainers: initContainers.map(withIndex) } : {}),
  };
  return pod;
}

function withIndex(container: Container): Container {
  const env = container.env ?? [];
  if (env.some(({ name }) => name === INDEX_VARIABLE)) return container;
  const fieldPath = `metadata.labels['${INDEX_ANNOTATION}']`;
  const variable = { name: INDEX_VARIABLE, valueFrom: { fieldRef: { fieldPath } } };
  return { ...container, env: [...env, variable] };
}
