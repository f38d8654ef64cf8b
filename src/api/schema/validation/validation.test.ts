import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { KubeObject } from '../../object.ts';
import { applyDefaults } from '../defaults.ts';
import { builtinTable } from '../table.ts';
import { structure } from '../validate.ts';
import { ANNOTATIONS_BYTES_MAX } from './metadata.ts';
import { validateCreate, validateUpdate } from './validation.ts';

const table = builtinTable();

type Fields = Record<string, unknown>;

function rowOf(apiVersion: string, kind: string) {
  const row = table.byKind(apiVersion, kind);
  assert.ok(row, kind);
  return row;
}

/** An object as it reaches validation: checked for structure, and with its defaults. */
function made(apiVersion: string, kind: string, fields: Fields): KubeObject {
  const row = rowOf(apiVersion, kind);
  const metadata = {
    name: 'x',
    ...(row.namespaced ? { namespace: 'ns' } : {}),
    ...(fields['metadata'] as object),
  };
  const { value } = structure(table, row.type, { apiVersion, kind, ...fields, metadata });
  return applyDefaults(row, value);
}

function problems(apiVersion: string, kind: string, fields: Fields): string[] {
  const causes = validateCreate(rowOf(apiVersion, kind), made(apiVersion, kind, fields));
  return causes.map(({ field, message }) => `${field}: ${message}`);
}

function updateProblems(apiVersion: string, kind: string, before: Fields, after: Fields): string[] {
  const [old, object] = [made(apiVersion, kind, before), made(apiVersion, kind, after)];
  return validateUpdate(rowOf(apiVersion, kind), object, old).map(
    ({ field, message }) => `${field}: ${message}`,
  );
}

const ASTRAY = { serviceAccountToken: { path: '../a' } };

const CONTAINER = { name: 'a', image: 'b' };
const podWith = (container: Fields, spec: Fields = {}) => ({
  spec: { containers: [{ ...CONTAINER, ...container }], ...spec },
});
const template = (labels: Fields, spec: Fields = {}) => ({
  metadata: { labels },
  spec: { containers: [CONTAINER], ...spec },
});

test('metadata is checked for every kind', () => {
  assert.deepEqual(problems('v1', 'ConfigMap', { metadata: { name: '', generateName: 'a-' } }), []);
  assert.deepEqual(problems('v1', 'ConfigMap', { metadata: { name: '' } }), [
    'metadata.name: Required value: name or generateName is required',
  ]);
  assert.deepEqual(problems('v1', 'Namespace', { metadata: { namespace: 'a' } }), [
    'metadata.namespace: Forbidden: not allowed on this type',
  ]);
  const size = { a: 'x'.repeat(ANNOTATIONS_BYTES_MAX) };
  assert.deepEqual(problems('v1', 'ConfigMap', { metadata: { annotations: size } }), [
    'metadata.annotations: Too long: may not be more than 262144 bytes',
  ]);
  assert.match(
    String(problems('v1', 'Service', { metadata: { name: '1a' }, spec: { clusterIP: 'None' } })),
    /DNS-1035/,
  );
  assert.deepEqual(
    problems('rbac.authorization.k8s.io/v1', 'Role', { metadata: { name: 'system:a' } }),
    [],
  );
});

const POD_CASES: [string, Fields, string[]][] = [
  ['no containers', { spec: {} }, ['spec.containers: Required value']],
  ['no image', podWith({ image: '' }), ['spec.containers[0].image: Required value']],
  [
    'two of a name',
    { spec: { containers: [CONTAINER, CONTAINER] } },
    ['spec.containers[1].name: Duplicate value: "a"'],
  ],
  [
    'port 0',
    podWith({ ports: [{ containerPort: 0 }] }),
    ['spec.containers[0].ports[0].containerPort: Required value'],
  ],
  [
    'protocol',
    podWith({ ports: [{ containerPort: 1, protocol: 'tcp' }] }),
    [
      'spec.containers[0].ports[0].protocol: Unsupported value: "tcp": supported values: "SCTP", "TCP", "UDP"',
    ],
  ],
  [
    'volume that is not there',
    podWith({ volumeMounts: [{ name: 'v', mountPath: '/a' }] }),
    ['spec.containers[0].volumeMounts[0].name: Not found: "v"'],
  ],
  [
    'climbing subPath',
    podWith(
      { volumeMounts: [{ name: 'v', mountPath: '/a', subPath: 'a/../..' }] },
      { volumes: [{ name: 'v' }] },
    ),
    [
      'spec.containers[0].volumeMounts[0].subPath: Invalid value: "a/../..": must not contain \'..\'',
    ],
  ],
  [
    'request above limit',
    podWith({ resources: { requests: { cpu: '2' }, limits: { cpu: '1500m' } } }),
    [
      'spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1500m',
    ],
  ],
  [
    'resource that nobody knows',
    podWith({ resources: { limits: { cpus: '1' } } }),
    [
      'spec.containers[0].resources.limits[cpus]: Invalid value: "cpus": must be a standard resource type or fully qualified',
      'spec.containers[0].resources.requests[cpus]: Invalid value: "cpus": must be a standard resource type or fully qualified',
    ],
  ],
  [
    'negative quantity',
    podWith({ resources: { requests: { memory: '-1' } } }),
    [
      'spec.containers[0].resources.requests[memory]: Invalid value: "-1": must be greater than or equal to 0',
    ],
  ],
  [
    'probe without handler',
    podWith({ livenessProbe: {} }),
    ['spec.containers[0].livenessProbe: Required value: must specify a handler type'],
  ],
  [
    'value and source',
    podWith({
      env: [{ name: 'A', value: 'x', valueFrom: { fieldRef: { fieldPath: 'metadata.name' } } }],
    }),
    [
      'spec.containers[0].env[0].valueFrom: Invalid value: "": may not be specified when `value` is not empty',
    ],
  ],
  [
    'restart policy',
    podWith({}, { restartPolicy: 'No' }),
    [
      'spec.restartPolicy: Unsupported value: "No": supported values: "Always", "Never", "OnFailure"',
    ],
  ],
  [
    'grace',
    podWith({}, { terminationGracePeriodSeconds: -1 }),
    ['spec.terminationGracePeriodSeconds: Invalid value: -1: must be greater than or equal to 0'],
  ],
  [
    'two sources',
    podWith({}, { volumes: [{ name: 'v', emptyDir: {}, hostPath: { path: '/' } }] }),
    ['spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type'],
  ],
  [
    'token outside of its volume',
    podWith({}, { volumes: [{ name: 'v', projected: { sources: [ASTRAY] } }] }),
    [
      'spec.volumes[0].projected.sources[0].serviceAccountToken.path: Invalid value: "../a": must not contain \'..\'',
    ],
  ],
  [
    'secret without name',
    podWith({}, { volumes: [{ name: 'v', secret: {} }] }),
    ['spec.volumes[0].secret.secretName: Required value'],
  ],
  [
    'host network ports',
    podWith({ ports: [{ containerPort: 80, hostPort: 81 }] }, { hostNetwork: true }),
    [
      'spec.containers[0].ports[0].containerPort: Invalid value: 80: must match `hostPort` when `hostNetwork` is true',
    ],
  ],
  [
    'init probe',
    podWith(
      {},
      { initContainers: [{ name: 'i', image: 'b', readinessProbe: { exec: { command: ['a'] } } }] },
    ),
    [
      'spec.initContainers[0].readinessProbe: Forbidden: may not be set for init containers without restartPolicy=Always',
    ],
  ],
  [
    'ephemeral',
    podWith({}, { ephemeralContainers: [{ name: 'e', image: 'b' }] }),
    ['spec.ephemeralContainers: Forbidden: cannot be set on create'],
  ],
  [
    'dns',
    podWith({}, { dnsPolicy: 'None' }),
    [
      'spec.dnsConfig.nameservers: Required value: must provide at least one DNS nameserver when `dnsPolicy` is None',
    ],
  ],
];

for (const [name, fields, wanted] of POD_CASES) {
  test(`a pod is refused for: ${name}`, () => {
    assert.deepEqual(problems('v1', 'Pod', fields), wanted);
  });
}

test('a pod that uses everything is accepted', () => {
  const container = {
    ...CONTAINER,
    command: ['a'],
    env: [
      { name: 'A', valueFrom: { fieldRef: { fieldPath: "metadata.labels['a']" } } },
      { name: 'B.c-d', valueFrom: { resourceFieldRef: { resource: 'limits.cpu' } } },
      { name: 'C', valueFrom: { secretKeyRef: { name: 's', key: 'k' } } },
    ],
    envFrom: [{ prefix: 'P_', configMapRef: { name: 'c' } }],
    livenessProbe: { tcpSocket: { port: 'http' } },
    lifecycle: { preStop: { exec: { command: ['b'] } } },
    ports: [{ name: 'http', containerPort: 80 }],
    resources: {
      requests: { cpu: '1', 'example.com/gpu': 1 },
      limits: { cpu: 2, 'example.com/gpu': 1 },
    },
    volumeMounts: [{ name: 'v', mountPath: '/a', subPath: 'x/y' }],
  };
  const spec = {
    initContainers: [
      { name: 'side', image: 'c', restartPolicy: 'Always', startupProbe: { grpc: { port: 1 } } },
    ],
    volumes: [
      { name: 'v' },
      {
        name: 'p',
        projected: {
          sources: [{ serviceAccountToken: { path: 'token' } }, { configMap: { name: 'c' } }],
        },
      },
      {
        name: 'd',
        downwardAPI: { items: [{ path: 'a', fieldRef: { fieldPath: 'metadata.name' } }] },
      },
    ],
    tolerations: [
      { operator: 'Exists' },
      { key: 'a', operator: 'Exists', effect: 'NoExecute', tolerationSeconds: 3 },
    ],
  };
  assert.deepEqual(problems('v1', 'Pod', podWith(container, spec)), []);
});

test('workloads must select their own pods', () => {
  const selector = { matchLabels: { a: '1' } };
  const app = (fields: Fields) => problems('apps/v1', 'Deployment', { spec: fields });
  assert.deepEqual(app({ selector, template: template({ a: '1' }) }), []);
  assert.deepEqual(app({ template: template({ a: '1' }) }), ['spec.selector: Required value']);
  assert.deepEqual(app({ selector, template: template({ a: '2' }) }), [
    'spec.template.metadata.labels: Invalid value: {"a":"2"}: `selector` does not match template `labels`',
  ]);
  assert.deepEqual(app({ selector: {}, template: template({ a: '1' }) }), [
    'spec.selector: Invalid value: {}: empty selector is invalid for deployment',
  ]);
  assert.deepEqual(
    app({ selector, replicas: -1, template: template({ a: '1' }, { restartPolicy: 'Never' }) }),
    [
      'spec.replicas: Invalid value: -1: must be greater than or equal to 0',
      'spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"',
    ],
  );
  const strategy = { rollingUpdate: { maxSurge: 0, maxUnavailable: '0%' } };
  assert.deepEqual(app({ selector, strategy, template: template({ a: '1' }) }), [
    'spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "0%": may not be 0 when `maxSurge` is 0',
  ]);
});

test('jobs and cron jobs', () => {
  assert.deepEqual(
    problems('batch/v1', 'Job', { spec: { template: template({}, { restartPolicy: 'Never' }) } }),
    [],
  );
  assert.deepEqual(problems('batch/v1', 'Job', { spec: { template: template({}) } }), [
    'spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"',
  ]);
  const job = { spec: { template: template({}, { restartPolicy: 'Never' }) } };
  const cron = (schedule: string) =>
    problems('batch/v1', 'CronJob', { spec: { schedule, jobTemplate: job } });
  for (const good of ['* * * * *', '*/5 0-6 1,15 jan mon-fri', '@hourly', '@every 1h30m']) {
    assert.deepEqual(cron(good), [], good);
  }
  assert.deepEqual(cron('1 2 3'), [
    'spec.schedule: Invalid value: "1 2 3": expected exactly 5 fields, found 3: [1 2 3]',
  ]);
  assert.equal(cron('61 * * * *').length, 1);
});

test('services', () => {
  const service = (spec: Fields) => problems('v1', 'Service', { spec });
  assert.deepEqual(service({ ports: [{ port: 80 }] }), []);
  assert.deepEqual(service({ clusterIP: 'None' }), []);
  assert.deepEqual(service({}), ['spec.ports: Required value']);
  assert.deepEqual(service({ ports: [{ port: 80 }, { port: 81 }] }), [
    'spec.ports[0].name: Required value',
    'spec.ports[1].name: Required value',
  ]);
  assert.deepEqual(service({ ports: [{ port: 0 }] }), [
    'spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive',
    'spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive',
  ]);
  assert.deepEqual(service({ ports: [{ port: 1, nodePort: 30000 }] }), [
    "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
  ]);
  assert.deepEqual(service({ type: 'ExternalName' }), ['spec.externalName: Required value']);
});

test('roles and bindings', () => {
  const group = 'rbac.authorization.k8s.io/v1';
  assert.deepEqual(
    problems(group, 'Role', { rules: [{ verbs: [], apiGroups: [''], resources: ['pods'] }] }),
    ['rules[0].verbs: Required value: verbs must contain at least one value'],
  );
  assert.match(
    String(problems(group, 'Role', { rules: [{ verbs: ['get'], nonResourceURLs: ['/x'] }] })),
    /namespaced rules/,
  );
  const binding = {
    roleRef: { kind: 'Role', name: 'r' },
    subjects: [{ kind: 'ServiceAccount', name: 'a' }],
  };
  assert.deepEqual(problems(group, 'RoleBinding', binding), [
    'subjects[0].namespace: Required value',
  ]);
  assert.deepEqual(
    problems(group, 'ClusterRoleBinding', { roleRef: { kind: 'Role', name: 'r' } }),
    ['roleRef.kind: Unsupported value: "Role": supported values: "ClusterRole"'],
  );
});

test('data of ConfigMaps and Secrets', () => {
  assert.match(
    String(problems('v1', 'ConfigMap', { data: { 'a/b': 'x' } })),
    /data\[a\/b\]: Invalid value: "a\/b"/,
  );
  const big = { a: 'x'.repeat(1024 * 1024 + 1) };
  assert.deepEqual(problems('v1', 'ConfigMap', { data: big }), [
    ': Too long: may not be more than 1048576 bytes',
  ]);
  assert.deepEqual(
    problems('v1', 'Secret', { type: 'kubernetes.io/tls', data: { 'tls.crt': '' } }),
    ['data[tls.key]: Required value'],
  );
});

test('what may not change is told', () => {
  const frozen = { data: { a: '1' }, immutable: true };
  assert.deepEqual(
    updateProblems('v1', 'ConfigMap', frozen, { data: { a: '2' }, immutable: true }),
    ['data: Forbidden: field is immutable when `immutable` is set'],
  );
  assert.deepEqual(updateProblems('v1', 'Secret', {}, { type: 'a/b' }), [
    'type: Invalid value: "a/b": field is immutable',
  ]);
  const app = (label: string) => ({
    spec: { selector: { matchLabels: { a: label } }, template: template({ a: label }) },
  });
  assert.deepEqual(updateProblems('apps/v1', 'Deployment', app('1'), app('2')), [
    'spec.selector: Invalid value: {"matchLabels":{"a":"2"}}: field is immutable',
  ]);
  const service = (clusterIP: string) => ({ spec: { clusterIP, ports: [{ port: 1 }] } });
  assert.deepEqual(updateProblems('v1', 'Service', service('10.0.0.1'), service('10.0.0.2')), [
    'spec.clusterIPs[0]: Invalid value: ["10.0.0.2"]: may not change once set',
  ]);
  const binding = (name: string) => ({ roleRef: { kind: 'Role', name } });
  assert.match(
    String(
      updateProblems('rbac.authorization.k8s.io/v1', 'RoleBinding', binding('a'), binding('b')),
    ),
    /^roleRef: Invalid value: .*: cannot change roleRef$/,
  );
  assert.deepEqual(
    updateProblems('v1', 'ConfigMap', { metadata: { uid: 'a' } }, { metadata: { uid: 'b' } }),
    ['metadata.uid: Invalid value: "b": field is immutable'],
  );
});

test('of a pod, images, deadlines and more tolerations may change', () => {
  const before = podWith({}, { tolerations: [{ key: 'a', operator: 'Exists' }] });
  const allowed = podWith(
    { image: 'c' },
    {
      activeDeadlineSeconds: 5,
      tolerations: [
        { key: 'a', operator: 'Exists' },
        { key: 'b', operator: 'Exists' },
      ],
    },
  );
  assert.deepEqual(updateProblems('v1', 'Pod', before, allowed), []);
  const lost = updateProblems('v1', 'Pod', before, podWith({}));
  assert.match(String(lost), /existing toleration can not be modified/);
  for (const spec of [
    { nodeName: 'n' },
    { restartPolicy: 'Never' },
    { nodeSelector: { a: 'b' } },
  ]) {
    const changed = podWith({}, { ...before.spec, containers: [CONTAINER], ...spec });
    assert.match(
      String(updateProblems('v1', 'Pod', before, changed)),
      /pod updates may not change fields/,
    );
  }
  const gated = podWith({}, { schedulingGates: [{ name: 'a' }] });
  assert.deepEqual(
    updateProblems('v1', 'Pod', gated, podWith({}, { nodeSelector: { a: 'b' } })),
    [],
  );
  assert.match(String(updateProblems('v1', 'Pod', podWith({}), gated)), /only deletion is allowed/);
});

test('a resize policy is one for each of CPU and memory', () => {
  const policy = (resourceName: string, restartPolicy: string) => ({ resourceName, restartPolicy });
  const check = (resizePolicy: object[], spec = {}) =>
    problems('v1', 'Pod', podWith({ resizePolicy }, spec));
  const fine = [policy('cpu', 'NotRequired'), policy('memory', 'RestartContainer')];
  assert.deepEqual(check(fine), []);
  const path = 'spec.containers[0].resizePolicy';
  assert.deepEqual(check(fine, { restartPolicy: 'Never' }), [
    `${path}[1]: Invalid value: "RestartContainer": must be 'NotRequired' when \`restartPolicy\` is 'Never'`,
  ]);
  assert.deepEqual(check([policy('cpu', 'NotRequired'), policy('cpu', 'NotRequired')]), [
    `${path}[1]: Duplicate value: "cpu"`,
  ]);
  assert.match(String(check([policy('disk', 'Maybe')])), /"cpu", "memory".*"NotRequired"/);
});

test('causes are bounded and values in them are cut', () => {
  const labels = Object.fromEntries(Array.from({ length: 500 }, (_, at) => [`-${at}`, 'x']));
  const causes = validateCreate(
    rowOf('v1', 'ConfigMap'),
    made('v1', 'ConfigMap', { metadata: { labels } }),
  );
  assert.equal(causes.length, 100);
  const [long] = problems('v1', 'ConfigMap', { metadata: { labels: { a: 'é'.repeat(5000) } } });
  assert.ok((long?.length ?? 0) < 1500);
});

test('quotas limit known names to amounts that can be', () => {
  const hard = { pods: '-1', services: '1.5', 'requests.cpu': '1.5', 'a.b/c': '1', nope: '1' };
  assert.deepEqual(problems('v1', 'ResourceQuota', { spec: { hard } }), [
    'spec.hard[pods]: Invalid value: "-1": must be greater than or equal to 0',
    'spec.hard[services]: Invalid value: "1500m": must be an integer',
    'spec.hard[nope]: Invalid value: "nope": must be a standard resource for quota',
  ]);
});
