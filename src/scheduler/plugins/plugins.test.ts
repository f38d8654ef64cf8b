import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Affinity, Node, Pod, TopologySpreadConstraint } from '../../api/types.generated.ts';
import { createSchedulerCache } from '../cache.ts';
import { describeFailure, placePod } from '../framework.ts';
import { makeNode, makePod } from '../testing/objects.ts';
import { DEFAULT_PLUGINS } from './index.ts';

/** Where the pod goes, or why nowhere. */
function place(pod: Pod, nodes: Node[], pods: Pod[] = []): string {
  const cache = createSchedulerCache();
  for (const node of nodes) cache.setNode(node);
  for (const other of pods) cache.setPod(other);
  for (const name of ['default', 'other']) {
    cache.setNamespace({
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: { name, labels: { name } },
    });
  }
  const placement = placePod(pod, cache, DEFAULT_PLUGINS, () => 0);
  return placement.node?.name ?? describeFailure(placement, nodes.length);
}

const zone = (name: string) => ({ 'topology.kubernetes.io/zone': name });
const blocked = { key: 'k', value: 'v', effect: 'NoSchedule' };
const term = (app: string, more = {}) => ({
  labelSelector: { matchLabels: { app } },
  topologyKey: 'kubernetes.io/hostname',
  ...more,
});
const near = (app: string, more = {}): Affinity => ({
  podAffinity: { requiredDuringSchedulingIgnoredDuringExecution: [term(app, more)] },
});
const apart = (app: string, more = {}): Affinity => ({
  podAntiAffinity: { requiredDuringSchedulingIgnoredDuringExecution: [term(app, more)] },
});
const nodeNear = (operator: string, values: string[]): Affinity => ({
  nodeAffinity: {
    requiredDuringSchedulingIgnoredDuringExecution: {
      nodeSelectorTerms: [{ matchExpressions: [{ key: 'size', operator, values }] }],
    },
  },
});
const spread = (overrides: Partial<TopologySpreadConstraint> = {}): TopologySpreadConstraint[] => [
  {
    maxSkew: 1,
    topologyKey: 'kubernetes.io/hostname',
    whenUnsatisfiable: 'DoNotSchedule',
    labelSelector: { matchLabels: { app: 'a' } },
    ...overrides,
  },
];

/** A pod on the first node, in the middle of a resize. */
function resizing(amounts: {
  cpu: string;
  allocated: string;
  actual: string;
  reason?: string;
}): Pod {
  const { cpu, allocated, actual, reason = 'Deferred' } = amounts;
  const pod = makePod('resizing', { nodeName: 'one', cpu, phase: 'Running' });
  const container = {
    ...{ name: 'main', image: 'image', imageID: '', ready: true, restartCount: 0 },
    allocatedResources: { cpu: allocated },
    resources: { requests: { cpu: actual } },
  };
  const conditions = [{ type: 'PodResizePending', status: 'True', reason }];
  return { ...pod, status: { ...pod.status, containerStatuses: [container], conditions } };
}

interface Case {
  name: string;
  pod: Pod;
  nodes: Node[];
  pods?: Pod[];
  expected: string;
}

const one = makeNode('one');
const two = makeNode('two');
const onOne = makePod('x', { nodeName: 'one', labels: { app: 'a' } });

const CASES: Case[] = [
  {
    name: 'there is no node',
    pod: makePod('p'),
    nodes: [],
    expected: 'no nodes available to schedule pods',
  },
  {
    name: 'requests do not fit, each resource is told',
    pod: makePod('p', { cpu: '5', memory: '9Gi' }),
    nodes: [one],
    expected: '0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient memory.',
  },
  {
    name: 'a pod that shrinks takes its room until its node has carried it out',
    pod: makePod('p', { cpu: '2' }),
    nodes: [one],
    pods: [resizing({ cpu: '1', allocated: '1', actual: '3' })],
    expected: '0/1 nodes are available: 1 Insufficient cpu.',
  },
  {
    name: 'a pod that is to grow takes its room at once',
    pod: makePod('p', { cpu: '2' }),
    nodes: [one],
    pods: [resizing({ cpu: '3', allocated: '1', actual: '1' })],
    expected: '0/1 nodes are available: 1 Insufficient cpu.',
  },
  {
    name: 'what its node can never give a pod takes no room',
    pod: makePod('p', { cpu: '2' }),
    nodes: [one],
    pods: [resizing({ cpu: '3', allocated: '1', actual: '1', reason: 'Infeasible' })],
    expected: 'one',
  },
  {
    name: "the VM's overhead is what does not fit",
    pod: makePod('p', { memory: '8Gi' }),
    nodes: [makeNode('one', { overheadBytes: 1 })],
    expected: '0/1 nodes are available: 1 Insufficient memory.',
  },
  {
    name: 'a node has its number of pods',
    pod: makePod('p'),
    nodes: [makeNode('one', { pods: '1' })],
    pods: [onOne],
    expected: '0/1 nodes are available: 1 Too many pods.',
  },
  {
    name: 'the emptier node is preferred',
    pod: makePod('p'),
    nodes: [one, two],
    pods: [makePod('x', { nodeName: 'one', cpu: '3' })],
    expected: 'two',
  },
  {
    name: 'node selector',
    pod: makePod('p', { spec: { nodeSelector: { size: 'big' } } }),
    nodes: [one, makeNode('two', { labels: { size: 'big' } })],
    expected: 'two',
  },
  {
    name: 'node selector that no node has',
    pod: makePod('p', { spec: { nodeSelector: { size: 'big' } } }),
    nodes: [one],
    expected: "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.",
  },
  {
    name: 'node affinity Gt compares numbers',
    pod: makePod('p', { spec: { affinity: nodeNear('Gt', ['9']) } }),
    nodes: [
      makeNode('one', { labels: { size: '8' } }),
      makeNode('two', { labels: { size: '10' } }),
    ],
    expected: 'two',
  },
  {
    name: 'node affinity NotIn also takes nodes without the label',
    pod: makePod('p', { spec: { affinity: nodeNear('NotIn', ['big']) } }),
    nodes: [makeNode('one', { labels: { size: 'big' } }), two],
    expected: 'two',
  },
  {
    name: 'taints and cordons are told apart',
    pod: makePod('p'),
    nodes: [makeNode('one', { taints: [blocked] }), makeNode('two', { unschedulable: true })],
    expected:
      '0/2 nodes are available: 1 node(s) had untolerated taint {k: v}, 1 node(s) were unschedulable.',
  },
  {
    name: 'a toleration by key and value',
    pod: makePod('p', { spec: { tolerations: [{ key: 'k', value: 'v', effect: 'NoSchedule' }] } }),
    nodes: [makeNode('one', { taints: [blocked] })],
    expected: 'one',
  },
  {
    name: 'an empty key with Exists tolerates everything',
    pod: makePod('p', { spec: { tolerations: [{ operator: 'Exists' }] } }),
    nodes: [makeNode('one', { taints: [blocked], unschedulable: true })],
    expected: 'one',
  },
  {
    name: 'PreferNoSchedule only costs score',
    pod: makePod('p'),
    nodes: [makeNode('one', { taints: [{ ...blocked, effect: 'PreferNoSchedule' }] }), two],
    expected: 'two',
  },
  {
    name: 'host ports clash on overlapping addresses',
    pod: makePod('p', {
      spec: {
        containers: [{ name: 'm', image: 'i', ports: [{ containerPort: 1, hostPort: 80 }] }],
      },
    }),
    nodes: [one],
    pods: [
      makePod('x', {
        nodeName: 'one',
        spec: {
          containers: [
            {
              name: 'm',
              image: 'i',
              ports: [{ containerPort: 1, hostPort: 80, hostIP: '10.0.0.1' }],
            },
          ],
        },
      }),
    ],
    expected:
      "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports.",
  },
  {
    name: 'near another pod',
    pod: makePod('p', { spec: { affinity: near('a') } }),
    nodes: [one, two],
    pods: [onOne],
    expected: 'one',
  },
  {
    name: 'near nobody',
    pod: makePod('p', { spec: { affinity: near('a') } }),
    nodes: [one],
    expected: "0/1 nodes are available: 1 node(s) didn't match pod affinity rules.",
  },
  {
    name: 'the first of a group that wants to be together',
    pod: makePod('p', { labels: { app: 'a' }, spec: { affinity: near('a') } }),
    nodes: [one],
    expected: 'one',
  },
  {
    name: 'apart from another pod',
    pod: makePod('p', { spec: { affinity: apart('a') } }),
    nodes: [one, two],
    pods: [onOne],
    expected: 'two',
  },
  {
    name: 'another pod keeps it away',
    pod: makePod('p', { labels: { app: 'b' } }),
    nodes: [one],
    pods: [makePod('x', { nodeName: 'one', spec: { affinity: apart('b') } })],
    expected:
      "0/1 nodes are available: 1 node(s) didn't satisfy existing pods anti-affinity rules.",
  },
  {
    name: 'anti-affinity speaks of its own namespace',
    pod: makePod('p', { spec: { affinity: apart('a') } }),
    nodes: [one],
    pods: [makePod('x', { nodeName: 'one', namespace: 'other', labels: { app: 'a' } })],
    expected: 'one',
  },
  {
    name: 'or of those that its namespaceSelector chooses',
    pod: makePod('p', {
      spec: { affinity: apart('a', { namespaceSelector: { matchLabels: { name: 'other' } } }) },
    }),
    nodes: [one],
    pods: [makePod('x', { nodeName: 'one', namespace: 'other', labels: { app: 'a' } })],
    expected: "0/1 nodes are available: 1 node(s) didn't match pod anti-affinity rules.",
  },
  {
    name: 'spread over hosts',
    pod: makePod('p', { labels: { app: 'a' }, spec: { topologySpreadConstraints: spread() } }),
    nodes: [one, two],
    pods: [onOne],
    expected: 'two',
  },
  {
    name: 'spread that no node satisfies',
    pod: makePod('p', {
      labels: { app: 'a' },
      spec: { topologySpreadConstraints: spread({ minDomains: 2 }) },
    }),
    nodes: [one],
    pods: [onOne],
    expected: "0/1 nodes are available: 1 node(s) didn't match pod topology spread constraints.",
  },
  {
    name: 'spread over zones needs the label',
    pod: makePod('p', {
      labels: { app: 'a' },
      spec: { topologySpreadConstraints: spread({ topologyKey: 'topology.kubernetes.io/zone' }) },
    }),
    nodes: [one, makeNode('two', { labels: zone('z') })],
    expected: 'two',
  },
  {
    name: 'pods of one workload are spread without being asked',
    pod: {
      ...makePod('p'),
      metadata: {
        name: 'p',
        namespace: 'default',
        labels: { app: 'a' },
        ownerReferences: [
          { apiVersion: 'apps/v1', kind: 'ReplicaSet', name: 'r', uid: 'u', controller: true },
        ],
      },
    },
    nodes: [makeNode('one', { cpu: '64' }), two],
    pods: [onOne],
    expected: 'two',
  },
];

for (const { name, pod, nodes, pods, expected } of CASES) {
  test(`placePod() ${name}`, () => assert.equal(place(pod, nodes, pods), expected));
}
