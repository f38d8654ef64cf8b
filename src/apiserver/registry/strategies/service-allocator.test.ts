import assert from 'node:assert/strict';
import { test } from 'node:test';
import { seededRandom } from '../../../base/random.ts';
import type { KubeObject } from '../../../api/object.ts';
import { NS, startHarness } from '../../testing/harness.ts';
import { createServiceAllocator, firstAddress, parseCidr } from './service-allocator.ts';
import type { ServiceSpec } from './service-allocator.ts';

function service(uid: string, spec: ServiceSpec): KubeObject {
  return { apiVersion: 'v1', kind: 'Service', metadata: { name: uid, uid }, spec: { ...spec } };
}

const TENANT = 'acme';

function allocator(services: KubeObject[] = []) {
  const owned = services.map((object) => ({ object, partition: TENANT }));
  const random = seededRandom(3);
  return createServiceAllocator({ cidr: '10.0.0.0/28', services: owned, random });
}

test('every address is given once, and given back', () => {
  const pool = allocator();
  const seen = new Set<string>();
  for (let i = 0; i < 14; i += 1) {
    const spec: ServiceSpec = {};
    if (pool.assign(`u${i}`, spec, TENANT).length > 0) break;
    assert.ok(!seen.has(spec.clusterIP ?? ''));
    seen.add(spec.clusterIP ?? '');
    pool.settle(`u${i}`, service(`u${i}`, spec), TENANT);
  }
  assert.ok(seen.size >= 12, `only ${seen.size} of 14 were found`);
  const [first = ''] = seen;
  assert.equal(pool.assign('x', { clusterIP: first }, TENANT)[0]?.field, 'spec.clusterIPs');
  pool.settle('u0', undefined, TENANT);
  assert.deepEqual(pool.assign('x', { clusterIP: first }, TENANT), []);
});

test('each tenant has all addresses, and learns of none that another has', () => {
  const pool = allocator([service('old', { clusterIP: '10.0.0.5', clusterIPs: ['10.0.0.5'] })]);
  const spec: ServiceSpec = { clusterIP: '10.0.0.5' };
  assert.deepEqual(pool.assign('new', spec, 'globex'), []);
  assert.equal(spec.clusterIP, '10.0.0.5');
  pool.settle('new', service('new', spec), 'globex');
  assert.equal(pool.assign('third', { clusterIP: '10.0.0.5' }, 'globex').length, 1);
  pool.settle('old', undefined, TENANT);
  assert.deepEqual(pool.assign('third', { clusterIP: '10.0.0.5' }, TENANT), []);
});

test('asking again for one service gives the same', () => {
  const pool = allocator();
  const one: ServiceSpec = { type: 'NodePort', ports: [{ port: 1 }, { port: 2 }] };
  const two: ServiceSpec = { type: 'NodePort', ports: [{ port: 1 }, { port: 2 }] };
  pool.assign('u', one, TENANT);
  pool.assign('u', two, TENANT);
  assert.deepEqual(one, two);
  assert.notEqual(one.ports?.[0]?.nodePort, one.ports?.[1]?.nodePort);
});

test('what exists at the start is taken, and what is out of range refused', () => {
  const pool = allocator([service('old', { clusterIP: '10.0.0.5', clusterIPs: ['10.0.0.5'] })]);
  const problem = (spec: ServiceSpec) => pool.assign('new', spec, TENANT)[0]?.message ?? '';
  assert.match(problem({ clusterIP: '10.0.0.5' }), /provided IP is already allocated/);
  assert.match(problem({ clusterIP: '10.0.0.0' }), /not in the valid range/);
  assert.match(problem({ clusterIP: '10.0.0.15' }), /not in the valid range/);
  assert.match(problem({ clusterIP: '10.1.0.1' }), /not in the valid range/);
  assert.match(problem({ clusterIP: '010.0.0.6' }), /not in the valid range/);
  assert.equal(problem({ clusterIP: 'None' }), '');
  const far: ServiceSpec = { type: 'NodePort', ports: [{ port: 1, nodePort: 80 }] };
  assert.match(problem(far), /range of valid ports is 30000-32767/);
});

test('ranges have to be networks', () => {
  for (const bad of ['10.0.0.1/28', '10.0.0.0', '10.0.0.0/30', 'fd00::/64', '10.0.0.0/x']) {
    assert.throws(() => parseCidr(bad), /cannot use the service range/, bad);
  }
  assert.equal(firstAddress('10.96.0.0/16'), '10.96.0.1');
});

test('services keep what they were given over updates, and give up the rest', async () => {
  await using api = await startHarness();
  const path = `${NS}/services`;
  const draft = { metadata: { name: 's' }, spec: { type: 'NodePort', ports: [{ port: 80 }] } };
  const created = await api.want('POST', path, draft);
  const { clusterIP, ports } = created.spec as ServiceSpec;
  const again = await api.want('PUT', `${path}/s`, draft);
  assert.equal((again.spec as ServiceSpec).clusterIP, clusterIP);
  assert.deepEqual((again.spec as ServiceSpec).ports, ports);
  const moved = { ...draft, spec: { ...draft.spec, clusterIP: '10.96.9.9' } };
  const refused = await api.send('PUT', `${path}/s`, moved);
  assert.equal(refused.code, 422);
  assert.match(refused.body.message ?? '', /may not change once set/);
  const nodePort = ports?.[0]?.nodePort;
  const thief = {
    metadata: { name: 't' },
    spec: { type: 'NodePort', ports: [{ port: 80, nodePort }] },
  };
  assert.equal((await api.send('POST', path, thief)).code, 422);
  await api.want(
    'PATCH',
    `${path}/s`,
    { spec: { type: 'ClusterIP' } },
    { type: 'application/merge-patch+json' },
  );
  assert.equal((await api.send('POST', path, thief)).code, 201);
  await api.want('DELETE', `${path}/s`);
  const heir = { metadata: { name: 'h' }, spec: { clusterIP, ports: [{ port: 1 }] } };
  assert.equal((await api.send('POST', path, heir)).code, 201);
  const same = { metadata: { name: 'i' }, spec: { clusterIP, ports: [{ port: 1 }] } };
  assert.match((await api.send('POST', path, same)).text, /provided IP is already allocated/);
});
