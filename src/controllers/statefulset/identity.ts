import type { PersistentVolumeClaim, Pod, StatefulSet } from '../../api/types.generated.ts';
import { apiVersionOf, PERSISTENT_VOLUME_CLAIMS, STATEFUL_SETS } from '../../client/resources.ts';
import { REVISION_HASH_LABEL } from '../common/history.ts';
import { controllerReference } from '../common/ownership.ts';
import { podFromTemplate } from '../common/pods.ts';

/** What makes a replica of a StatefulSet the same one after it was replaced. */
const NAME_LABEL = 'statefulset.kubernetes.io/pod-name';
const INDEX_LABEL = 'apps.kubernetes.io/pod-index';

/** The ordinal in a pod's name, undefined when the name is not one of this set's. */
export function ordinalOf(set: StatefulSet, { metadata }: Pod): number | undefined {
  const prefix = `${set.metadata.name}-`;
  const { name = '' } = metadata;
  const text = name.startsWith(prefix) ? name.slice(prefix.length) : '';
  return /^(0|[1-9]\d{0,8})$/.test(text) ? Number(text) : undefined;
}

const claimName = (set: StatefulSet, template: string, ordinal: number): string =>
  `${template}-${set.metadata.name}-${ordinal}`;

const templatesOf = ({ spec }: StatefulSet): PersistentVolumeClaim[] =>
  spec?.volumeClaimTemplates ?? [];

/** The claims of one replica. They outlive it, and the set unless that owns them. */
export function claimsOf(set: StatefulSet, ordinal: number): PersistentVolumeClaim[] {
  const { spec } = set;
  const isOwned = spec?.persistentVolumeClaimRetentionPolicy?.whenDeleted === 'Delete';
  const { controller: _controller, ...ownerReference } = controllerReference(STATEFUL_SETS, set);
  return templatesOf(set).map((template) => ({
    apiVersion: apiVersionOf(PERSISTENT_VOLUME_CLAIMS),
    kind: PERSISTENT_VOLUME_CLAIMS.kind,
    metadata: {
      name: claimName(set, template.metadata.name ?? '', ordinal),
      namespace: set.metadata.namespace,
      labels: { ...template.metadata.labels, ...spec?.selector.matchLabels },
      ...(isOwned ? { ownerReferences: [ownerReference] } : {}),
      ...(template.metadata.annotations ? { annotations: template.metadata.annotations } : {}),
    },
    ...(template.spec ? { spec: template.spec } : {}),
  }));
}

/** The replica of an ordinal, from the set's template as it was at a revision of this name. */
export function replicaOf(
  set: StatefulSet,
  template: NonNullable<StatefulSet['spec']>['template'],
  ordinal: number,
  revision: string,
): Pod {
  const pod = podFromTemplate(template, set, STATEFUL_SETS);
  const name = `${set.metadata.name}-${ordinal}`;
  const { generateName: _generated, ...metadata } = pod.metadata;
  pod.metadata = {
    ...metadata,
    name,
    labels: {
      ...metadata.labels,
      [NAME_LABEL]: name,
      [INDEX_LABEL]: String(ordinal),
      [REVISION_HASH_LABEL]: revision,
    },
  };
  if (!pod.spec) return pod;
  const claimed = templatesOf(set).map(({ metadata: { name: template = '' } }) => ({
    name: template,
    persistentVolumeClaim: { claimName: claimName(set, template, ordinal) },
  }));
  const names = new Set(claimed.map((volume) => volume.name));
  const others = (pod.spec.volumes ?? []).filter((volume) => !names.has(volume.name));
  const volumes = [...claimed, ...others];
  const { serviceName } = set.spec ?? {};
  pod.spec = {
    ...pod.spec,
    hostname: name,
    ...(serviceName ? { subdomain: serviceName } : {}),
    ...(volumes.length > 0 ? { volumes } : {}),
  };
  return pod;
}
