import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Pod, Service } from '../../api/types.generated.ts';
import { ENDPOINT_SLICES, ENDPOINTS, PODS, SERVICES } from '../../client/resources.ts';
import { startTestCluster } from '../common/testing.fake.ts';
import { runEndpointsController } from './index.ts';

const service = (more: Partial<Service['spec']> & object = {}): Service => ({
  apiVersion: 'v1',
  kind: 'Service',
  metadata: { name: 'web', namespace: 'ns', labels: { tier: 'front' } },
  spec: {
    selector: { app: 'web' },
    ports: [{ name: 'http', port: 80, targetPort: 'http' }],
    ...more,
  },
});

function pod(index: number, ready = 'True', containerPort = 8080): Pod {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: `p${index}`, namespace: 'ns', labels: { app: 'web' } },
    spec: { nodeName: 'n', containers: [{ name: 'c', ports: [{ name: 'http', containerPort }] }] },
    status: {
      phase: 'Running',
      podIP: `10.88.${Math.floor(index / 250)}.${index % 250}`,
      conditions: [{ type: 'Ready', status: ready }],
    },
  };
}

test('ready and unready pods of a service are told, in slices and in Endpoints', async (t) => {
  const { api, pass } = startTestCluster(t, [runEndpointsController]);
  api.put(SERVICES, service());
  await pass(500);
  assert.equal(api.all(ENDPOINT_SLICES).length, 1);
  assert.deepEqual(api.all(ENDPOINT_SLICES)[0]?.endpoints, []);
  api.put(PODS, pod(1));
  api.put(PODS, pod(2, 'False'));
  api.put(PODS, { ...pod(3), metadata: { ...pod(3).metadata, labels: { app: 'x' } } });
  api.put(PODS, { ...pod(4), status: { phase: 'Succeeded', podIP: '10.88.9.9' } });
  await pass(500);
  const [slice] = api.all(ENDPOINT_SLICES);
  assert.equal(slice?.metadata.labels?.['kubernetes.io/service-name'], 'web');
  assert.equal(slice?.metadata.labels?.tier, 'front');
  assert.deepEqual(slice?.ports, [{ name: 'http', protocol: 'TCP', port: 8080 }]);
  const states = slice?.endpoints.map(({ addresses, conditions }) => [
    addresses[0],
    conditions?.ready,
  ]);
  assert.deepEqual(states, [
    ['10.88.0.1', true],
    ['10.88.0.2', false],
  ]);
  const [subset] = api.get(ENDPOINTS, 'ns', 'web')?.subsets ?? [];
  assert.deepEqual(
    subset?.addresses?.map(({ ip }) => ip),
    ['10.88.0.1'],
  );
  assert.deepEqual(
    subset?.notReadyAddresses?.map(({ ip }) => ip),
    ['10.88.0.2'],
  );
  const before = api.writes.length;
  api.put(PODS, { ...pod(1), metadata: { ...pod(1).metadata, annotations: { a: 'b' } } });
  await pass(500);
  assert.equal(api.writes.length, before, 'a change that concerns nobody writes nothing');
});

test('the pods of a suspended tenant are no endpoints until it is resumed', async (t) => {
  const { api, pass } = startTestCluster(t, [runEndpointsController]);
  api.put(SERVICES, service({ publishNotReadyAddresses: true }));
  api.put(PODS, pod(1));
  await pass(500);
  const told = () => api.all(ENDPOINT_SLICES).flatMap(({ endpoints }) => endpoints).length;
  assert.equal(told(), 1);
  const annotations = { 'hypernetes.io/suspended': '2026-01-01T00:00:00.000Z' };
  api.put(PODS, { ...pod(1), metadata: { ...pod(1).metadata, annotations } });
  await pass(500);
  assert.equal(told(), 0);
  api.put(PODS, { ...pod(1), metadata: { ...pod(1).metadata, annotations: {} } });
  await pass(500);
  assert.equal(told(), 1);
});

test('pods that mean another port by the same name get a slice of their own', async (t) => {
  const { api, pass } = startTestCluster(t, [runEndpointsController]);
  api.put(PODS, pod(1));
  api.put(PODS, pod(2, 'True', 9090));
  api.put(SERVICES, service());
  await pass(500);
  const ports = api.all(ENDPOINT_SLICES).map((slice) => slice.ports?.[0]?.port);
  assert.deepEqual(ports.sort(), [8080, 9090]);
});

test('slices hold a hundred, and surplus ones go', async (t) => {
  const { api, pass } = startTestCluster(t, [runEndpointsController]);
  api.put(SERVICES, service());
  for (let index = 0; index < 250; index++) api.put(PODS, pod(index));
  await pass(1000);
  const lengths = () => api.all(ENDPOINT_SLICES).map(({ endpoints }) => endpoints.length);
  assert.deepEqual(
    lengths().sort((a, b) => a - b),
    [50, 100, 100],
  );
  for (let index = 0; index < 200; index++) api.remove(PODS, 'ns', `p${index}`);
  await pass(1000);
  assert.deepEqual(lengths(), [50]);
});

test('a terminating pod is no longer ready, and Endpoints go with their service', async (t) => {
  const { api, pass } = startTestCluster(t, [runEndpointsController]);
  const ending = pod(1);
  ending.metadata.deletionTimestamp = '2026-01-01T00:00:00Z';
  ending.metadata.finalizers = ['x'];
  api.put(PODS, ending);
  api.put(SERVICES, service());
  api.put(ENDPOINTS, {
    apiVersion: 'v1',
    kind: 'Endpoints',
    metadata: { name: 'mine', namespace: 'ns' },
  });
  api.put(SERVICES, {
    ...service({ selector: undefined }),
    metadata: { name: 'mine', namespace: 'ns' },
  });
  await pass(500);
  const conditions = api.all(ENDPOINT_SLICES)[0]?.endpoints[0]?.conditions;
  assert.deepEqual(conditions, { ready: false, serving: true, terminating: true });
  assert.equal(api.get(ENDPOINTS, 'ns', 'web')?.subsets, undefined);
  api.remove(SERVICES, 'ns', 'web');
  api.remove(SERVICES, 'ns', 'mine');
  await pass(500);
  assert.deepEqual(
    api.all(ENDPOINTS).map(({ metadata }) => metadata.name),
    ['mine'],
  );
});
