/**
 * The least that each namespaced kind has to be, for objects that do nothing: attempts are made at
 * every kind that the server knows, and a kind without a row here fails the suite.
 */
const template = { spec: { containers: [{ name: 'main', image: 'example.org/app:1' }] } };
const labels = { app: 'target' };
const selected = {
  selector: { matchLabels: labels },
  template: { metadata: { labels }, ...template },
};

const EVENT = {
  ...{ eventTime: '2026-01-01T00:00:00.000000Z', action: 'Looked', reason: 'Because' },
  ...{ reportingController: 'example.org/c', reportingInstance: 'c', type: 'Normal' },
  note: 'CANARY',
};

const MINIMAL: Record<string, object> = {
  configmaps: { data: { plain: 'CANARY' } },
  endpoints: { subsets: [{ addresses: [{ ip: '192.0.2.7' }], ports: [{ port: 80 }] }] },
  limitranges: { spec: { limits: [] } },
  persistentvolumeclaims: {
    spec: { accessModes: ['ReadWriteOnce'], resources: { requests: { storage: '1Gi' } } },
  },
  pods: template,
  podtemplates: { template },
  replicationcontrollers: { spec: { replicas: 0, selector: labels, template: selected.template } },
  resourcequotas: { spec: { hard: { 'count/widgets.example.org': '9' } } },
  secrets: { stringData: { password: 'CANARY' } },
  serviceaccounts: {},
  services: { spec: { ports: [{ port: 80 }], selector: labels } },
  'controllerrevisions.apps': { revision: 1, data: { note: 'CANARY' } },
  'daemonsets.apps': {
    spec: { ...selected, template: { ...selected.template, spec: unschedulable() } },
  },
  'deployments.apps': { spec: { replicas: 0, ...selected } },
  'replicasets.apps': { spec: { replicas: 0, ...selected } },
  'statefulsets.apps': { spec: { replicas: 0, serviceName: 'target', ...selected } },
  'horizontalpodautoscalers.autoscaling': {
    spec: {
      maxReplicas: 1,
      scaleTargetRef: { kind: 'Deployment', name: 'x', apiVersion: 'apps/v1' },
    },
  },
  'cronjobs.batch': {
    spec: { schedule: '0 0 1 1 *', suspend: true, jobTemplate: { spec: { template: job() } } },
  },
  'jobs.batch': { spec: { suspend: true, template: job() } },
  'leases.coordination.k8s.io': { spec: { holderIdentity: 'CANARY' } },
  'endpointslices.discovery.k8s.io': { addressType: 'IPv4', endpoints: [], ports: [] },
  'events.events.k8s.io': EVENT,
  'ingresses.networking.k8s.io': {
    spec: { defaultBackend: { service: { name: 'target', port: { number: 80 } } } },
  },
  'networkpolicies.networking.k8s.io': { spec: { podSelector: {} } },
  'poddisruptionbudgets.policy': { spec: { minAvailable: 0, selector: { matchLabels: labels } } },
  'roles.rbac.authorization.k8s.io': { rules: [] },
  'rolebindings.rbac.authorization.k8s.io': {
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'view' },
    subjects: [],
  },
  'resourceclaims.resource.k8s.io': { spec: {} },
  'resourceclaimtemplates.resource.k8s.io': { spec: { spec: {} } },
  'csistoragecapacities.storage.k8s.io': { storageClassName: 'x' },
};

function job(): object {
  return { spec: { ...template.spec, restartPolicy: 'Never' } };
}

function unschedulable(): object {
  return { ...template.spec, nodeSelector: { 'example.org/none': 'none' } };
}

/** An object of a kind with everything in it that only its owner knows. */
export function minimal(
  kind: string,
  namespace: string,
  name: string,
  canary: string,
): Record<string, unknown> {
  const text = JSON.stringify(MINIMAL[kind] ?? {}).replaceAll('CANARY', canary);
  const object = JSON.parse(text) as Record<string, unknown>;
  const metadata = {
    ...{ name, namespace, labels: { app: 'target', mark: canary } },
    annotations: { 'example.org/note': canary },
  };
  const regarding = { kind: 'Pod', namespace, name };
  if (kind === 'events') {
    const { reportingController: reportingComponent, note: message, ...rest } = EVENT;
    const said = message.replace('CANARY', canary);
    return { ...rest, reportingComponent, message: said, metadata, involvedObject: regarding };
  }
  if (kind === 'events.events.k8s.io') return { ...object, metadata, regarding };
  return { ...object, metadata };
}
