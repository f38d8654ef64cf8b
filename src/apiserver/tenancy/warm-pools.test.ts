import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { KubeObject } from '../../api/object.ts';
import { createWarmPools, memoryLeft } from './warm-pools.ts';

const MIB = 2 ** 20;

function node(name: string, annotations: Record<string, string>, memory = '8Gi'): KubeObject {
  const head = { apiVersion: 'v1', kind: 'Node', metadata: { name, annotations } };
  return { ...head, status: { capacity: { memory } } } as KubeObject;
}
const holds = (mib: number) => ({ 'holdings.hypernetes.io/acme': String(mib * MIB) });
const allowed = (text: string) => ({ 'allowances.hypernetes.io/acme': text });

test('memory of waiting VMs is part of what is used, by each name of memory and no other', () => {
  const pools = createWarmPools();
  pools.set(node('n1', holds(200)));
  pools.set(node('n2', holds(56)));
  const used = { 'requests.memory': '1Gi', 'limits.memory': '0', pods: '3', 'requests.cpu': '1' };
  assert.deepEqual(pools.addTo('acme', used), {
    ...{ 'requests.memory': '1280Mi', 'limits.memory': String(256 * MIB) },
    ...{ pods: '3', 'requests.cpu': '1' },
  });
  assert.deepEqual(pools.addTo('other', used), used);
  pools.delete(node('n1', {}));
  assert.deepEqual(pools.addTo('acme', { 'requests.memory': '0' }), {
    'requests.memory': String(56 * MIB),
  });
});

test('nodes share what pods leave, in steps, and are told nothing where their own bound is less', () => {
  const pools = createWarmPools();
  pools.set(node('n1', holds(500)));
  pools.set(node('n2', holds(0)));
  const hard = { 'requests.memory': '4Gi', 'limits.memory': '8Gi' };
  const used = (text: string) => ({ 'requests.memory': text, 'limits.memory': text });
  assert.deepEqual(pools.corrections('acme', memoryLeft({}, {})), []);
  assert.deepEqual(
    pools.corrections('acme', memoryLeft(hard, used('1Gi'))),
    [],
    'a tenth of 8 GiB each fits',
  );
  assert.deepEqual(pools.corrections('acme', memoryLeft(hard, used('3Gi'))), [
    { node: 'n1', allowance: 512 * MIB },
    { node: 'n2', allowance: 512 * MIB },
  ]);
  assert.deepEqual(pools.corrections('acme', memoryLeft(hard, used(`${3 * 1024 + 1}Mi`))), [
    { node: 'n1', allowance: 448 * MIB },
    { node: 'n2', allowance: 448 * MIB },
  ]);
  assert.deepEqual(pools.corrections('acme', memoryLeft(hard, used('5Gi'))), [
    { node: 'n1', allowance: 0 },
    { node: 'n2', allowance: 0 },
  ]);
});

test('what was told is told once, taken back when it is not needed, and not to who is going', () => {
  const pools = createWarmPools();
  const hard = { 'requests.memory': '1Gi' };
  const used = { 'requests.memory': '512Mi' };
  pools.set(node('n1', { ...holds(100), ...allowed(String(512 * MIB)) }));
  assert.deepEqual(pools.corrections('acme', memoryLeft(hard, used)), []);
  assert.deepEqual(pools.corrections('acme', memoryLeft({}, {})), [
    { node: 'n1', allowance: null },
  ]);
  pools.set(node('n1', allowed('5')));
  assert.deepEqual(pools.corrections('acme', memoryLeft(hard, used)), [
    { node: 'n1', allowance: null },
  ]);
  pools.set(node('n1', { ...holds(100), ...allowed('nothing') }));
  assert.deepEqual(pools.corrections('acme', memoryLeft(hard, used)), []);
});

test('whose changes are told, and no others', () => {
  const pools = createWarmPools();
  const changed: string[] = [];
  pools.onChange = (tenant) => changed.push(tenant);
  pools.set(node('n1', { ...holds(1), 'holdings.hypernetes.io/other': '1' }));
  pools.set(node('n1', { ...holds(2), 'holdings.hypernetes.io/other': '1' }));
  pools.delete(node('n1', {}));
  assert.deepEqual(changed, ['acme', 'other', 'acme', 'acme', 'other']);
});
