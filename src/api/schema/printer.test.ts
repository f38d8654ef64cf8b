import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { KubeObject } from '../object.ts';
import { printCells } from './printer.ts';
import { builtinTable } from './table.ts';

const table = builtinTable();
const NOW = Date.parse('2026-11-21T12:00:00Z');
const CREATED = '2026-11-21T11:00:00Z';

function cells(apiVersion: string, kind: string, fields: object): unknown[] {
  const row = table.byKind(apiVersion, kind);
  assert.ok(row, kind);
  const { metadata, ...rest } = fields as { metadata?: object };
  const named = { name: 'x', creationTimestamp: CREATED, ...metadata };
  return printCells(row, { apiVersion, kind, metadata: named, ...rest } as KubeObject, NOW);
}

const running = { ready: true, restartCount: 0, state: { running: {} } };
const ended = (exitCode: number, more: object = {}) => ({
  ready: false,
  restartCount: 0,
  state: { terminated: { exitCode, ...more } },
});
const waiting = (reason: string, restartCount = 0) => ({
  ready: false,
  restartCount,
  state: { waiting: { reason } },
});

interface PodParts {
  phase?: string;
  init?: object[];
  initSpecs?: object[];
  containers?: object[];
  status?: object;
  metadata?: object;
}

/** READY, STATUS and RESTARTS of a pod with two containers. */
function pod({
  phase = 'Running',
  init = [],
  initSpecs,
  containers = [],
  status = {},
  metadata = {},
}: PodParts): unknown[] {
  const names = (list: object[]) => list.map((entry, at) => ({ name: `c${at}`, ...entry }));
  const specs = initSpecs ?? init.map(() => ({}));
  return cells('v1', 'Pod', {
    metadata,
    spec: { containers: names([{}, {}]), initContainers: names(specs) },
    status: {
      phase,
      containerStatuses: names(containers),
      initContainerStatuses: names(init),
      ...status,
    },
  }).slice(1, 4);
}

const ready = { conditions: [{ type: 'Ready', status: 'True' }] };
const initialized = { conditions: [{ type: 'Initialized', status: 'True' }] };
const PODS: [string, PodParts, unknown[]][] = [
  ['pending', { phase: 'Pending' }, ['0/2', 'Pending', '0']],
  [
    'gated',
    {
      phase: 'Pending',
      status: { conditions: [{ type: 'PodScheduled', reason: 'SchedulingGated' }] },
    },
    ['0/2', 'SchedulingGated', '0'],
  ],
  ['running', { containers: [running, running] }, ['2/2', 'Running', '0']],
  [
    'creating',
    { phase: 'Pending', containers: [waiting('ContainerCreating'), running] },
    ['1/2', 'ContainerCreating', '0'],
  ],
  [
    'crash loop',
    { containers: [waiting('CrashLoopBackOff', 4), running] },
    ['1/2', 'CrashLoopBackOff', '4'],
  ],
  [
    'completed',
    {
      phase: 'Succeeded',
      containers: [ended(0, { reason: 'Completed' }), ended(0, { reason: 'Completed' })],
    },
    ['0/2', 'Completed', '0'],
  ],
  [
    'one of two completed',
    { containers: [ended(0, { reason: 'Completed' }), running], status: ready },
    ['1/2', 'Running', '0'],
  ],
  [
    'completed, the other not ready',
    { containers: [ended(0, { reason: 'Completed' }), running] },
    ['1/2', 'NotReady', '0'],
  ],
  ['exit code', { phase: 'Failed', containers: [ended(3)] }, ['0/2', 'ExitCode:3', '0']],
  [
    'signal',
    { phase: 'Failed', containers: [ended(137, { signal: 9 })] },
    ['0/2', 'Signal:9', '0'],
  ],
  [
    'first init',
    { phase: 'Pending', init: [waiting('PodInitializing'), waiting('PodInitializing')] },
    ['0/2', 'Init:0/2', '0'],
  ],
  ['second init', { phase: 'Pending', init: [ended(0), running] }, ['0/2', 'Init:1/2', '0']],
  [
    'init failing',
    { phase: 'Pending', init: [waiting('CrashLoopBackOff', 2)] },
    ['0/2', 'Init:CrashLoopBackOff', '2'],
  ],
  [
    'init failed',
    { phase: 'Failed', init: [ended(1, { reason: 'Error' })] },
    ['0/2', 'Init:Error', '0'],
  ],
  [
    'sidecar',
    {
      init: [{ ...running, started: true }],
      initSpecs: [{ restartPolicy: 'Always' }],
      containers: [running, running],
    },
    ['3/3', 'Running', '0'],
  ],
  [
    'sidecar not started',
    {
      init: [waiting('PodInitializing')],
      initSpecs: [{ restartPolicy: 'Always' }],
      containers: [],
      status: initialized,
    },
    ['0/3', 'Init:0/1', '0'],
  ],
  [
    'terminating',
    { containers: [running, running], metadata: { deletionTimestamp: CREATED } },
    ['2/2', 'Terminating', '0'],
  ],
  [
    'lost',
    { status: { reason: 'NodeLost' }, metadata: { deletionTimestamp: CREATED } },
    ['0/2', 'Unknown', '0'],
  ],
  ['evicted', { phase: 'Failed', status: { reason: 'Evicted' } }, ['0/2', 'Evicted', '0']],
  [
    'restarted',
    {
      containers: [
        {
          ...running,
          restartCount: 2,
          lastState: { terminated: { finishedAt: '2026-11-21T11:57:00Z' } },
        },
        running,
      ],
    },
    ['2/2', 'Running', '2 (3m ago)'],
  ],
];

for (const [name, parts, wanted] of PODS) {
  test(`STATUS of a pod: ${name}`, () => {
    assert.deepEqual(pod(parts), wanted);
  });
}

test('nodes show status, roles and addresses', () => {
  const node = {
    metadata: {
      labels: { 'node-role.kubernetes.io/worker': '', 'node-role.kubernetes.io/control-plane': '' },
    },
    spec: { unschedulable: true },
    status: {
      conditions: [{ type: 'Ready', status: 'True' }],
      addresses: [{ type: 'InternalIP', address: '10.0.0.1' }],
      nodeInfo: {
        kubeletVersion: 'v1.35.0',
        osImage: 'Debian',
        kernelVersion: '6.1',
        containerRuntimeVersion: 'hyper://1',
      },
    },
  };
  assert.deepEqual(cells('v1', 'Node', node), [
    'x',
    'Ready,SchedulingDisabled',
    'control-plane,worker',
    '60m',
    'v1.35.0',
    '10.0.0.1',
    '<none>',
    'Debian',
    '6.1',
    'hyper://1',
  ]);
  assert.deepEqual(cells('v1', 'Node', {}).slice(1, 3), ['Unknown', '<none>']);
});

test('services, deployments, events and volumes print as kubectl shows them', () => {
  const service = {
    spec: {
      type: 'LoadBalancer',
      clusterIP: '10.0.0.1',
      ports: [{ port: 80, nodePort: 3, protocol: 'TCP' }],
      selector: { b: '1', a: '2' },
    },
  };
  assert.deepEqual(cells('v1', 'Service', service), [
    'x',
    'LoadBalancer',
    '10.0.0.1',
    '<pending>',
    '80:3/TCP',
    '60m',
    'a=2,b=1',
  ]);
  const deployment = {
    spec: {
      replicas: 3,
      selector: { matchLabels: { a: '1' } },
      template: {
        spec: {
          containers: [
            { name: 'c', image: 'i:1' },
            { name: 'd', image: 'j' },
          ],
        },
      },
    },
    status: { readyReplicas: 2, updatedReplicas: 3, availableReplicas: 1 },
  };
  assert.deepEqual(cells('apps/v1', 'Deployment', deployment), [
    'x',
    '2/3',
    3,
    1,
    '60m',
    'c,d',
    'i:1,j',
    'a=1',
  ]);
  const event = {
    involvedObject: { kind: 'Pod', name: 'p', fieldPath: 'spec.containers{a}' },
    type: 'Normal',
    reason: 'Pulled',
    message: 'ok\n',
    source: { component: 'kubelet', host: 'n' },
    firstTimestamp: '2026-11-21T11:50:00Z',
    lastTimestamp: '2026-11-21T11:59:30Z',
    count: 3,
  };
  assert.deepEqual(cells('v1', 'Event', event), [
    '30s',
    'Normal',
    'Pulled',
    'pod/p',
    'spec.containers{a}',
    'kubelet, n',
    'ok',
    '10m',
    '3',
    'x',
  ]);
  const claim = {
    spec: { volumeName: 'v', storageClassName: 's', volumeMode: 'Filesystem' },
    status: { phase: 'Bound', capacity: { storage: '1Gi' }, accessModes: ['ReadWriteOnce'] },
  };
  assert.deepEqual(cells('v1', 'PersistentVolumeClaim', claim), [
    'x',
    'Bound',
    'v',
    '1Gi',
    'RWO',
    's',
    '<unset>',
    '60m',
    'Filesystem',
  ]);
  const job = {
    spec: { completions: 2 },
    status: { succeeded: 1, startTime: '2026-11-21T11:59:00Z' },
  };
  assert.deepEqual(cells('batch/v1', 'Job', job).slice(1, 4), ['Running', '1/2', '60s']);
});
