import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { PodResources } from '../../api/hyperd.ts';
import { AgentError } from '../agent/agent.ts';
import {
  containerSpec,
  createRig,
  isRunning,
  podSpec,
  podUntil,
  runningPod,
} from './testing/rig.ts';

const MIB = 2 ** 20;
const LIMITS = { cpuMillis: 800, cpuWeightMillis: 200, memoryMib: 256 };
const RESOURCES = { cpuMillis: 800, cpuWeightMillis: 200, memoryBytes: 96 * MIB };

const wanted = (id: string, more: Partial<PodResources> = {}): PodResources => ({
  limits: LIMITS,
  containers: [{ id, resources: RESOURCES, labels: { size: 'new' } }],
  ...more,
});

test('resize() gives the VM and its containers other limits, which a restart of hyperd keeps', async () => {
  await using rig = await createRig();
  const first = await rig.start();
  await first.createPod(podSpec('a'));
  await podUntil(first, 'a', isRunning);
  await first.pod('a').startContainer(containerSpec('c', { labels: { size: 'old', kept: 'x' } }));
  const state = await first.pod('a').resize(wanted('c'));
  assert.deepEqual(state.spec.limits, LIMITS);
  assert.deepEqual(state.containers[0]?.labels, { size: 'new', kept: 'x' });
  const { limits } = rig.hypervisor.running.get('a') ?? {};
  assert.deepEqual({ ...limits, processCount: 0 }, { ...LIMITS, processCount: 0 });
  assert.deepEqual(rig.guest('a').containers.get('c')?.spec.resources, RESOURCES);
  await first.pod('a').resize(wanted('c'));
  await first.close();

  const daemon = await rig.start();
  await podUntil(daemon, 'a', isRunning);
  const after = daemon.pod('a');
  assert.deepEqual(after.state().spec.limits, LIMITS);
  assert.deepEqual(after.container('c').record.spec.resources, RESOURCES);
  assert.deepEqual(after.state().containers[0]?.labels, { size: 'new', kept: 'x' });
});

test('resize() refuses what is beyond the VM, below what is used, and a pod that is not awake', async () => {
  await using rig = await createRig();
  const daemon = await rig.start();
  await runningPod(daemon, 'a');
  const pod = daemon.pod('a');
  const [{ id } = { id: '' }] = pod.state().containers;
  const before = pod.state().spec.limits;
  const tooMuch = { ...RESOURCES, memoryBytes: 129 * MIB };
  await assert.rejects(pod.resize({ limits: LIMITS, containers: [{ id, resources: tooMuch }] }), {
    reason: 'Invalid',
    message: /containers\[0\].resources.memoryBytes.* was started with 134217728 bytes in all/,
  });
  await assert.rejects(pod.resize(wanted('nobody')), { reason: 'NotFound' });
  assert.deepEqual(pod.state().spec.limits, before);

  rig.guest('a').before = async (operation) => {
    if (operation !== 'setResources') return;
    throw new AgentError('Refused', 'memory limit 5 is below the 9 bytes in use');
  };
  await assert.rejects(pod.resize(wanted(id)), /below the 9 bytes in use/);
  const widest = rig.hypervisor.running.get('a')?.limits;
  assert.equal(widest?.cpuMillis, 0, 'what was held to no limit is held to none until all is done');
  assert.equal(pod.state().containers[0]?.labels['size'], undefined);

  rig.guest('a').before = async () => {};
  await pod.pause();
  await assert.rejects(pod.resize(wanted(id)), { reason: 'Conflict' });
  await pod.unpause();
  await pod.resize(wanted(id));
  await pod.stop();
  await assert.rejects(pod.resize(wanted(id)), { reason: 'Conflict' });
});
