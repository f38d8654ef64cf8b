/**
 * Kubernetes' defaults that depend on other fields: type → rule. A rule gets a shallow copy whose
 * parts already have their defaults, and replaces fields of it; it never changes a value within.
 */
type Fields = Record<string, unknown>;
export type DefaultRule = (value: Fields) => void;

const RBAC_GROUP = 'rbac.authorization.k8s.io';

export const DEFAULT_RULES: Record<string, DefaultRule> = {
  'core.v1.Container': pullPolicyByTag('image', 'imagePullPolicy'),
  'core.v1.EphemeralContainer': pullPolicyByTag('image', 'imagePullPolicy'),
  'core.v1.ImageVolumeSource': pullPolicyByTag('reference', 'pullPolicy'),
  'core.v1.LimitRangeItem': (item) => {
    if (item['type'] !== 'Container') return;
    item['default'] = { ...fields(item['max']), ...fields(item['default']) };
    item['defaultRequest'] = {
      ...fields(item['min']),
      ...fields(item['default']),
      ...fields(item['defaultRequest']),
    };
    for (const field of ['default', 'defaultRequest']) {
      if (Object.keys(fields(item[field])).length === 0) delete item[field];
    }
  },
  'core.v1.Namespace': (namespace) => {
    const metadata = fields(namespace['metadata']);
    if (typeof metadata['name'] !== 'string') return;
    const labels = {
      ...fields(metadata['labels']),
      'kubernetes.io/metadata.name': metadata['name'],
    };
    namespace['metadata'] = { ...metadata, labels };
  },
  'core.v1.Pod': (pod) => {
    const spec = { ...fields(pod['spec']) };
    spec['enableServiceLinks'] ??= true;
    for (const list of ['containers', 'initContainers']) {
      if (Array.isArray(spec[list])) spec[list] = spec[list].map(requestsFromLimits);
    }
    pod['spec'] = spec;
  },
  'core.v1.PodSpec': (spec) => {
    const account = spec['serviceAccountName'] || spec['serviceAccount'];
    if (account) {
      spec['serviceAccountName'] = account;
      spec['serviceAccount'] = account;
    }
    if (spec['hostNetwork'] !== true) return;
    for (const list of ['containers', 'initContainers']) {
      if (Array.isArray(spec[list])) spec[list] = spec[list].map(hostPorts);
    }
  },
  'core.v1.ReplicationController': (controller) => {
    labelsFromTemplate(controller);
    const spec = fields(controller['spec']);
    const labels = templateLabels(spec);
    if (spec['selector'] === undefined && labels) {
      controller['spec'] = { ...spec, selector: { ...labels } };
    }
  },
  'core.v1.ServicePort': (port) => {
    const target = port['targetPort'];
    if (target === undefined || target === 0 || target === '') port['targetPort'] = port['port'];
  },
  'core.v1.ServiceSpec': (spec) => {
    const type = spec['type'];
    if (spec['sessionAffinity'] === 'None') delete spec['sessionAffinityConfig'];
    if (spec['sessionAffinity'] === 'ClientIP') {
      const config = fields(spec['sessionAffinityConfig']);
      const clientIP = { timeoutSeconds: 10_800, ...fields(config['clientIP']) };
      spec['sessionAffinityConfig'] = { ...config, clientIP };
    }
    if (type === 'NodePort' || type === 'LoadBalancer') spec['externalTrafficPolicy'] ||= 'Cluster';
    if (type !== 'ExternalName') spec['internalTrafficPolicy'] ??= 'Cluster';
    if (type === 'LoadBalancer') spec['allocateLoadBalancerNodePorts'] ??= true;
  },
  'core.v1.Volume': (volume) => {
    if (Object.keys(volume).every((field) => field === 'name')) volume['emptyDir'] = {};
  },
  'apps.v1.DaemonSetUpdateStrategy': (strategy) => {
    if (strategy['type'] !== 'RollingUpdate') return;
    const given = fields(strategy['rollingUpdate']);
    strategy['rollingUpdate'] = { maxSurge: 0, maxUnavailable: 1, ...given };
  },
  'apps.v1.DeploymentStrategy': (strategy) => {
    if (strategy['type'] !== 'RollingUpdate') return;
    const given = fields(strategy['rollingUpdate']);
    strategy['rollingUpdate'] = { maxUnavailable: '25%', maxSurge: '25%', ...given };
  },
  'apps.v1.StatefulSetSpec': (spec) => {
    const templates = spec['volumeClaimTemplates'];
    if (!Array.isArray(templates)) return;
    const identity = { apiVersion: 'v1', kind: 'PersistentVolumeClaim' };
    spec['volumeClaimTemplates'] = templates.map((template) => ({
      ...identity,
      ...fields(template),
    }));
  },
  'apps.v1.StatefulSetUpdateStrategy': (strategy) => {
    if (strategy['type'] !== 'RollingUpdate') return;
    strategy['rollingUpdate'] = { partition: 0, ...fields(strategy['rollingUpdate']) };
  },
  'autoscaling.v2.HorizontalPodAutoscalerSpec': (spec) => {
    const metrics = spec['metrics'];
    if (Array.isArray(metrics) && metrics.length > 0) return;
    const target = { type: 'Utilization', averageUtilization: 80 };
    spec['metrics'] = [{ type: 'Resource', resource: { name: 'cpu', target } }];
  },
  'autoscaling.v2.HorizontalPodAutoscalerBehavior': (behavior) => {
    const percent = { type: 'Percent', value: 100, periodSeconds: 15 };
    const pods = { type: 'Pods', value: 4, periodSeconds: 15 };
    const up = { stabilizationWindowSeconds: 0, selectPolicy: 'Max', policies: [pods, percent] };
    behavior['scaleUp'] = { ...up, ...fields(behavior['scaleUp']) };
    const down = { selectPolicy: 'Max', policies: [percent] };
    behavior['scaleDown'] = { ...down, ...fields(behavior['scaleDown']) };
  },
  'batch.v1.Job': (job) => {
    labelsFromTemplate(job);
    const spec = { ...fields(job['spec']) };
    if (spec['completions'] === undefined && spec['parallelism'] === undefined) {
      spec['completions'] = 1;
    }
    spec['parallelism'] ??= 1;
    spec['backoffLimit'] ??= spec['backoffLimitPerIndex'] === undefined ? 6 : 2 ** 31 - 1;
    spec['completionMode'] ??= 'NonIndexed';
    spec['suspend'] ??= false;
    const failuresAreJudged = spec['podFailurePolicy'] !== undefined;
    spec['podReplacementPolicy'] ??= failuresAreJudged ? 'Failed' : 'TerminatingOrFailed';
    job['spec'] = spec;
  },
  'networking.v1.NetworkPolicySpec': (spec) => {
    if (Array.isArray(spec['policyTypes']) && spec['policyTypes'].length > 0) return;
    const egress = Array.isArray(spec['egress']) && spec['egress'].length > 0;
    spec['policyTypes'] = egress ? ['Ingress', 'Egress'] : ['Ingress'];
  },
  'rbac.v1.Subject': (subject) => {
    if (subject['apiGroup']) return;
    if (subject['kind'] === 'User' || subject['kind'] === 'Group') subject['apiGroup'] = RBAC_GROUP;
  },
  'resource.v1.ExactDeviceRequest': (request) => {
    request['allocationMode'] ||= 'ExactCount';
    if (request['allocationMode'] === 'ExactCount') request['count'] ||= 1;
  },
  'resource.v1.DeviceSubRequest': (request) => {
    request['allocationMode'] ||= 'ExactCount';
    if (request['allocationMode'] === 'ExactCount') request['count'] ||= 1;
  },
  'apiextensions.v1.CustomResourceDefinitionSpec': (spec) => {
    const names = { ...fields(spec['names']) };
    const kind = names['kind'];
    if (typeof kind !== 'string' || kind === '') return;
    names['singular'] ||= kind.toLowerCase();
    names['listKind'] ||= `${kind}List`;
    spec['names'] = names;
  },
};

function pullPolicyByTag(imageField: string, policyField: string): DefaultRule {
  return (value) => {
    if (value[policyField]) return;
    const image = value[imageField];
    value[policyField] =
      imageTag(typeof image === 'string' ? image : '') === 'latest' ? 'Always' : 'IfNotPresent';
  };
}

/** The tag of a reference; `latest` where there is neither tag nor digest. */
function imageTag(image: string): string {
  const [name = '', digest] = image.split('@', 2);
  const tag = /:([\w][\w.-]{0,127})$/.exec(name.slice(name.lastIndexOf('/') + 1))?.[1];
  return tag ?? (digest === undefined ? 'latest' : '');
}

function requestsFromLimits(container: unknown): unknown {
  const resources = fields(fields(container)['resources']);
  const limits = resources['limits'];
  if (limits === undefined) return container;
  const requests = { ...fields(limits), ...fields(resources['requests']) };
  return { ...fields(container), resources: { ...resources, requests } };
}

function hostPorts(container: unknown): unknown {
  const ports = fields(container)['ports'];
  if (!Array.isArray(ports)) return container;
  const mapped = ports.map((port) => ({
    ...fields(port),
    hostPort: fields(port)['hostPort'] || fields(port)['containerPort'],
  }));
  return { ...fields(container), ports: mapped };
}

function labelsFromTemplate(workload: Fields): void {
  const metadata = fields(workload['metadata']);
  const labels = templateLabels(fields(workload['spec']));
  if (!labels || Object.keys(fields(metadata['labels'])).length > 0) return;
  workload['metadata'] = { ...metadata, labels: { ...labels } };
}

function templateLabels(spec: Fields): Fields | undefined {
  const labels = fields(fields(spec['template'])['metadata'])['labels'];
  return Object.keys(fields(labels)).length > 0 ? fields(labels) : undefined;
}

function fields(value: unknown): Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? (value as Fields)
    : {};
}
