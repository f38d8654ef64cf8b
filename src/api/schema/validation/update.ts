import { isDeepStrictEqual } from 'node:util';
import type { KubeObject } from '../../object.ts';
import type { ResourceRow } from '../schema.ts';
import { fields, items, text } from './report.ts';
import type { Fields, Report } from './report.ts';

/** Fields that never change once the object exists, by resource. Paths from the root. */
const IMMUTABLE: Record<string, string[]> = {
  secrets: ['type'],
  persistentvolumes: ['spec.volumeMode'],
  'daemonsets.apps': ['spec.selector'],
  'deployments.apps': ['spec.selector'],
  'replicasets.apps': ['spec.selector'],
  'jobs.batch': ['spec.selector', 'spec.completionMode', 'spec.podFailurePolicy', 'spec.managedBy'],
  'endpointslices.discovery.k8s.io': ['addressType'],
  'ingressclasses.networking.k8s.io': ['spec.controller'],
  'runtimeclasses.node.k8s.io': ['handler'],
  'certificatesigningrequests.certificates.k8s.io': ['spec'],
  'csidrivers.storage.k8s.io': ['spec.attachRequired', 'spec.fsGroupPolicy'],
  'volumeattachments.storage.k8s.io': ['spec'],
  'resourceclaims.resource.k8s.io': ['spec'],
};

/** Fields whose change is refused with this sentence. */
const FORBIDDEN: Record<string, [path: string, detail: string][]> = {
  'priorityclasses.scheduling.k8s.io': [['value', 'may not be changed in an update.']],
  'storageclasses.storage.k8s.io': [
    ['parameters', 'updates to parameters are forbidden.'],
    ['provisioner', 'updates to provisioner are forbidden.'],
    ['reclaimPolicy', 'updates to reclaimPolicy are forbidden.'],
  ],
};

type UpdateCheck = (object: Fields, old: Fields, report: Report) => void;

/** What may not change between two versions of an object. */
export function checkUpdate(
  row: ResourceRow,
  object: KubeObject,
  old: KubeObject,
  report: Report,
): void {
  const key = row.group ? `${row.resource}.${row.group}` : row.resource;
  for (const path of IMMUTABLE[key] ?? []) {
    const value = at(object, path);
    if (isDeepStrictEqual(value, at(old, path))) continue;
    report.at(path).invalid(value ?? '', 'field is immutable');
  }
  for (const [path, detail] of FORBIDDEN[key] ?? []) {
    if (!isDeepStrictEqual(at(object, path), at(old, path))) report.at(path).forbidden(detail);
  }
  UPDATE_CHECKS[key]?.(object, old, report);
}

const UPDATE_CHECKS: Record<string, UpdateCheck> = {
  pods: checkPodUpdate,
  configmaps: (object, old, report) => checkFrozen(object, old, report, ['data', 'binaryData']),
  secrets: (object, old, report) => checkFrozen(object, old, report, ['data']),
  services: checkServiceUpdate,
  persistentvolumeclaims: checkClaimUpdate,
  nodes: (object, old, report) => {
    for (const field of ['podCIDR', 'providerID']) {
      const before = at(old, `spec.${field}`);
      if (!before || before === at(object, `spec.${field}`)) continue;
      report
        .at('spec', field)
        .forbidden(
          'node updates may only change labels, taints, or capacity (or configSource, if the DynamicKubeletConfig feature gate is enabled)',
        );
    }
  },
  'statefulsets.apps': checkStatefulSetUpdate,
  'jobs.batch': checkJobUpdate,
  'rolebindings.rbac.authorization.k8s.io': checkRoleRef,
  'clusterrolebindings.rbac.authorization.k8s.io': checkRoleRef,
};

function checkRoleRef(object: Fields, old: Fields, report: Report): void {
  if (isDeepStrictEqual(object['roleRef'], old['roleRef'])) return;
  report.at('roleRef').invalid(object['roleRef'], 'cannot change roleRef');
}

function checkFrozen(object: Fields, old: Fields, report: Report, content: string[]): void {
  if (old['immutable'] !== true) return;
  const detail = 'field is immutable when `immutable` is set';
  if (object['immutable'] !== true) report.at('immutable').forbidden(detail);
  for (const field of content) {
    if (!isDeepStrictEqual(object[field], old[field])) report.at(field).forbidden(detail);
  }
}

function checkServiceUpdate(object: Fields, old: Fields, report: Report): void {
  const before = fields(old['spec']);
  const after = fields(object['spec']);
  if (before['type'] === 'ExternalName' || after['type'] === 'ExternalName') return;
  const address = text(before['clusterIP']);
  if (address === '' || address === after['clusterIP']) return;
  report.at('spec', 'clusterIPs', 0).invalid([text(after['clusterIP'])], 'may not change once set');
}

const POD_UPDATE_DETAIL =
  'pod updates may not change fields other than `spec.containers[*].image`,' +
  '`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions ' +
  'to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it ' +
  'was previously negative)';

function checkPodUpdate(object: Fields, old: Fields, report: Report): void {
  const before = fields(old['spec']);
  const after = fields(object['spec']);
  if (before === after) return;
  const spec = report.at('spec');
  for (const list of ['containers', 'initContainers']) {
    if (items(before[list]).length !== items(after[list]).length) {
      spec.at(list).forbidden('pod updates may not add or remove containers');
      return;
    }
  }
  checkDeadline(
    before['activeDeadlineSeconds'],
    after['activeDeadlineSeconds'],
    spec.at('activeDeadlineSeconds'),
  );
  const kept = items(after['tolerations']);
  const lost = items(before['tolerations']).some(
    (toleration) =>
      !kept.some((entry) => isDeepStrictEqual(withoutSeconds(entry), withoutSeconds(toleration))),
  );
  if (lost)
    spec
      .at('tolerations')
      .forbidden('existing toleration can not be modified except its tolerationSeconds');
  checkGates(before, after, spec);
  const gated = items(before['schedulingGates']).length > 0;
  if (!isDeepStrictEqual(comparable(before, gated), comparable(after, gated))) {
    spec.forbidden(POD_UPDATE_DETAIL);
  }
}

function checkDeadline(before: unknown, after: unknown, report: Report): void {
  if (typeof before !== 'number') return;
  if (typeof after !== 'number')
    report.invalid('', 'must not update from a positive integer to nil value');
  else if (after > before) report.invalid(after, `must be less than or equal to previous value`);
}

/** Gates only ever open, and only a gated pod may get another node selector. */
function checkGates(before: Fields, after: Fields, report: Report): void {
  const known = new Set(items(before['schedulingGates']).map((gate) => gate['name']));
  for (const gate of items(after['schedulingGates'])) {
    if (!known.has(gate['name'])) {
      report
        .at('schedulingGates')
        .forbidden('only deletion is allowed, but found new scheduling gate');
    }
  }
}

/** The spec without what may change; before its gates are open, a pod may still be steered. */
function comparable(spec: Fields, gated: boolean): Fields {
  const {
    activeDeadlineSeconds: _deadline,
    tolerations: _tolerations,
    schedulingGates: _gates,
    ephemeralContainers: _ephemeral,
    nodeSelector,
    affinity,
    ...rest
  } = spec;
  const images = (list: unknown) => items(list).map(({ image: _image, ...container }) => container);
  const grace = rest['terminationGracePeriodSeconds'];
  return {
    ...rest,
    containers: images(rest['containers']),
    initContainers: images(rest['initContainers']),
    terminationGracePeriodSeconds: typeof grace === 'number' && grace < 0 ? 1 : grace,
    ...(gated ? {} : { nodeSelector, affinity }),
  };
}

function withoutSeconds({ tolerationSeconds: _seconds, ...toleration }: Fields): Fields {
  return toleration;
}

const STATEFUL_SET_CHANGES = [
  'replicas',
  'ordinals',
  'template',
  'updateStrategy',
  'revisionHistoryLimit',
  'persistentVolumeClaimRetentionPolicy',
  'minReadySeconds',
];

function checkStatefulSetUpdate(object: Fields, old: Fields, report: Report): void {
  if (
    isDeepStrictEqual(
      omit(object['spec'], STATEFUL_SET_CHANGES),
      omit(old['spec'], STATEFUL_SET_CHANGES),
    )
  ) {
    return;
  }
  const allowed = STATEFUL_SET_CHANGES.map((field) => `'${field}'`);
  const named = `${allowed.slice(0, -1).join(', ')} and ${allowed.at(-1)}`;
  report
    .at('spec')
    .forbidden(`updates to statefulset spec for fields other than ${named} are forbidden`);
}

const CLAIM_CHANGES = ['resources', 'volumeAttributesClassName', 'volumeName', 'storageClassName'];

function checkClaimUpdate(object: Fields, old: Fields, report: Report): void {
  const before = fields(old['spec']);
  const after = fields(object['spec']);
  const bound = text(before['volumeName']) !== '';
  const changes = bound ? CLAIM_CHANGES.slice(0, 2) : CLAIM_CHANGES;
  if (isDeepStrictEqual(omit(before, changes), omit(after, changes))) return;
  report
    .at('spec')
    .forbidden(
      'spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims',
    );
}

function checkJobUpdate(object: Fields, old: Fields, report: Report): void {
  const before = fields(old['spec']);
  const after = fields(object['spec']);
  const suspended = before['suspend'] === true && at(old, 'status.startTime') === undefined;
  if (!suspended && !isDeepStrictEqual(before['template'], after['template'])) {
    report.at('spec', 'template').invalid(after['template'], 'field is immutable');
  }
  const elastic =
    before['completionMode'] === 'Indexed' && after['completions'] === after['parallelism'];
  if (!elastic && before['completions'] !== after['completions']) {
    report.at('spec', 'completions').invalid(after['completions'] ?? '', 'field is immutable');
  }
}

function omit(value: unknown, names: readonly string[]): Fields {
  return Object.fromEntries(
    Object.entries(fields(value)).filter(([name]) => !names.includes(name)),
  );
}

function at(value: unknown, path: string): unknown {
  return path.split('.').reduce<unknown>((part, name) => fields(part)[name], value);
}
