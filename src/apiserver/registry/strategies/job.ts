import type { KubeObject } from '../../../api/object.ts';
import type { Strategy } from '../strategy.ts';

interface JobSpec {
  manualSelector?: boolean;
  selector?: { matchLabels?: Record<string, string> };
  template: { metadata?: { labels?: Record<string, string> } };
}

/** The label of old controllers is written beside the one with a prefix. */
const UID_LABELS = ['batch.kubernetes.io/controller-uid', 'controller-uid'];
const NAME_LABELS = ['batch.kubernetes.io/job-name', 'job-name'];

export const jobStrategy: Strategy = {
  hasGeneration: true,
  defaultPropagation: 'Orphan',
  propagationWarning:
    'child pods are preserved by default when jobs are deleted; set propagationPolicy=Background ' +
    'to remove them or set propagationPolicy=Orphan to suppress this warning',
  immutable: ['spec.backoffLimitPerIndex', 'spec.successPolicy'],
  prepareCreate(job) {
    const spec = job.spec as JobSpec | undefined;
    if (spec && !spec.manualSelector) selectOwnPods(job, spec);
  },
};

/** A job finds its pods by its uid, so that two jobs of one name never share any. */
function selectOwnPods(job: KubeObject, spec: JobSpec): void {
  const { uid = '', name = '' } = job.metadata;
  const labels: Record<string, string> = { ...spec.template.metadata?.labels };
  for (const label of UID_LABELS) labels[label] = uid;
  for (const label of NAME_LABELS) labels[label] = name;
  spec.template = { ...spec.template, metadata: { ...spec.template.metadata, labels } };
  const matchLabels = { ...spec.selector?.matchLabels, [UID_LABELS[0] as string]: uid };
  spec.selector = { ...spec.selector, matchLabels };
}
