import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createSchedulerCache } from './cache.ts';
import { makeNode, makePod } from './testing/objects.ts';

test('a node has what its pods leave, and each pod costs the VM its overhead', () => {
  const cache = createSchedulerCache();
  cache.setNode(makeNode('n', { overheadBytes: 50 }));
  cache.setPod(makePod('a', { nodeName: 'n', cpu: '500m', memory: '100' }));
  cache.setPod(makePod('b', { nodeName: 'n', cpu: '1', memory: '100' }));
  assert.deepEqual(cache.nodes[0]?.requested, { cpu: 1500, memory: 300 });
  cache.removePod('default/a');
  assert.deepEqual(cache.nodes[0]?.requested, { cpu: 1000, memory: 150 });
});

test('a pod that ended takes no room', () => {
  const cache = createSchedulerCache();
  cache.setNode(makeNode('n'));
  cache.setPod(makePod('a', { nodeName: 'n', cpu: '1' }));
  cache.setPod(makePod('a', { nodeName: 'n', cpu: '1', phase: 'Succeeded' }));
  assert.equal(cache.nodes[0]?.pods.length, 0);
  assert.equal(cache.nodes[0]?.requested.cpu, 0);
});

test('an assumed pod counts until the API says otherwise', () => {
  const cache = createSchedulerCache();
  cache.setNode(makeNode('n'));
  const pod = makePod('a', { cpu: '1' });
  cache.assume(pod, 'n');
  cache.setPod(pod);
  assert.equal(cache.nodes[0]?.requested.cpu, 1000, 'an update from before the binding is ignored');
  cache.setPod(makePod('a', { nodeName: 'n', cpu: '1' }));
  assert.equal(cache.nodes[0]?.requested.cpu, 1000);
  cache.forget('default/a');
  assert.equal(cache.nodes[0]?.requested.cpu, 1000, 'forget() undoes an assumption only');
  cache.removePod('default/a');
  assert.equal(cache.nodes[0]?.requested.cpu, 0);
});

test('pods of a node that is not known yet are kept for it', () => {
  const cache = createSchedulerCache();
  cache.setPod(makePod('a', { nodeName: 'n', cpu: '1' }));
  assert.equal(cache.nodes.length, 0);
  cache.setNode(makeNode('n'));
  assert.equal(cache.nodes[0]?.requested.cpu, 1000);
});
