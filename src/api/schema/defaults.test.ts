import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { KubeObject } from '../object.ts';
import { applyDefaults } from './defaults.ts';
import { builtinTable } from './table.ts';

const table = builtinTable();

function defaulted(apiVersion: string, kind: string, fields: object): Record<string, any> {
  const row = table.byKind(apiVersion, kind);
  assert.ok(row, kind);
  return applyDefaults(row, { apiVersion, kind, metadata: { name: 'x' }, ...fields } as KubeObject);
}

const container = (fields: object) => ({
  spec: { containers: [{ name: 'a', image: 'b', ...fields }] },
});
const firstContainer = (fields: object) =>
  defaulted('v1', 'Pod', container(fields))['spec'].containers[0];

test('the pull policy follows from the tag', () => {
  const table: [image: string, policy: string][] = [
    ['nginx', 'Always'],
    ['nginx:latest', 'Always'],
    ['localhost:5000/nginx', 'Always'],
    ['localhost:5000/nginx:1', 'IfNotPresent'],
    [`nginx@sha256:${'0'.repeat(64)}`, 'IfNotPresent'],
  ];
  for (const [image, policy] of table) {
    assert.equal(firstContainer({ image })['imagePullPolicy'], policy, image);
  }
  assert.equal(firstContainer({ imagePullPolicy: 'Never' })['imagePullPolicy'], 'Never');
});

test('pods get requests from limits, their templates do not', () => {
  const resources = { limits: { cpu: '1', memory: '1Gi' }, requests: { cpu: '500m' } };
  assert.deepEqual(firstContainer({ resources })['resources'].requests, {
    cpu: '500m',
    memory: '1Gi',
  });
  const template = container({ resources });
  const deployment = defaulted('apps/v1', 'Deployment', { spec: { template } })['spec'];
  assert.deepEqual(deployment.template.spec.containers[0].resources, resources);
  assert.equal(deployment.template.spec.enableServiceLinks, undefined);
  assert.deepEqual(deployment.strategy, {
    type: 'RollingUpdate',
    rollingUpdate: { maxUnavailable: '25%', maxSurge: '25%' },
  });
});

test('zero is unset where Go has no pointer, and a value where it has', () => {
  const probe = firstContainer({ livenessProbe: { timeoutSeconds: 0, exec: { command: ['a'] } } });
  assert.equal(probe['livenessProbe'].timeoutSeconds, 1);
  assert.equal(defaulted('apps/v1', 'Deployment', { spec: { replicas: 0 } })['spec'].replicas, 0);
});

test('host networking opens the ports on the host', () => {
  const { spec } = container({ ports: [{ containerPort: 80 }] });
  const pod = defaulted('v1', 'Pod', { spec: { ...spec, hostNetwork: true } });
  assert.deepEqual(pod['spec'].containers[0].ports, [
    { containerPort: 80, hostPort: 80, protocol: 'TCP' },
  ]);
});

test('services, jobs and namespaces get what depends on other fields', () => {
  const service = defaulted('v1', 'Service', {
    spec: { type: 'LoadBalancer', ports: [{ port: 80 }] },
  });
  assert.deepEqual(service['spec'], {
    type: 'LoadBalancer',
    ports: [{ port: 80, protocol: 'TCP', targetPort: 80 }],
    sessionAffinity: 'None',
    externalTrafficPolicy: 'Cluster',
    internalTrafficPolicy: 'Cluster',
    allocateLoadBalancerNodePorts: true,
  });
  const job = defaulted('batch/v1', 'Job', { spec: { parallelism: 3 } })['spec'];
  assert.deepEqual([job.parallelism, job.completions, job.backoffLimit], [3, undefined, 6]);
  const namespace = defaulted('v1', 'Namespace', {});
  assert.deepEqual(namespace['metadata'].labels, { 'kubernetes.io/metadata.name': 'x' });
});
