import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import type { Pod } from '../../src/api/types.generated.ts';
import { systemClock } from '../../src/base/clock.ts';
import { pushDemoImage } from '../../src/cli/demo/demo-image.ts';
import { createHyperdClient } from '../../src/client/hyperd.ts';
import type { HyperdClient } from '../../src/client/hyperd.ts';
import { PODS } from '../../src/client/resources.ts';
import { startCluster } from './support/cluster.ts';
import type { TestCluster } from './support/cluster.ts';
import { findKubectls } from './support/kubectl.ts';
import type { Kubectl } from './support/kubectl.ts';
import { waitFor } from './support/wait.ts';

/** Memory that a pod has used and does not use any more goes back to the host, while it runs. */
const NAMESPACE = 'default';
const USED_MIB = 100;
/** The guest gathers what is free for two seconds, and reports a part of it at a time. */
const RETURN_MS = 60_000;
const POLL_MS = 500;

let cluster: TestCluster;
let kubectl: Kubectl;
let hyperd: HyperdClient;
let image: string;

before(async () => {
  cluster = await startCluster(['--warm-pool', 'off']);
  image = await pushDemoImage(cluster.registryPort);
  const [found] = await findKubectls(cluster.kubeconfig, join(cluster.dataDir, 'kubectl'));
  kubectl = found ?? assert.fail();
  hyperd = createHyperdClient(join(cluster.dataDir, 'run/hyperd.sock'));
});
after(async () => {
  hyperd?.close();
  await cluster?.[Symbol.asyncDispose]();
});

async function run(name: string): Promise<{ origin: string; pid: number }> {
  const resources = { limits: { memory: '192Mi' } };
  const volumeMounts = [{ name: 'memory', mountPath: '/memory' }];
  const pod: Pod = {
    ...{ apiVersion: 'v1', kind: 'Pod', metadata: { namespace: NAMESPACE, name } },
    spec: {
      terminationGracePeriodSeconds: 0,
      volumes: [{ name: 'memory', emptyDir: { medium: 'Memory' } }],
      containers: [{ name: 'main', image, command: ['sleep', '1000'], resources, volumeMounts }],
    },
  };
  await cluster.client.create(PODS, pod);
  const running = (each: Pod | undefined) => each?.status?.phase === 'Running';
  const found = await waitFor(cluster.client, PODS, { namespace: NAMESPACE, name }, running);
  const uid = found?.metadata.uid ?? '';
  const { pid } = (await hyperd.vms()).find((vm) => vm.pod === uid) ?? assert.fail();
  return { origin: (await hyperd.pod(uid)).origin, pid };
}

/** Of the emulator, what it shares with others counted in part. */
async function pssMib(pid: number): Promise<number> {
  const text = await readFile(`/proc/${pid}/smaps_rollup`, 'utf8');
  return Number(/^Pss:\s+(\d+) kB/m.exec(text)?.[1]) / 1024;
}

async function untilBelow(pid: number, limitMib: number): Promise<number> {
  const deadlineMs = systemClock.monotonicMs() + RETURN_MS;
  for (;;) {
    const now = await pssMib(pid);
    if (now < limitMib || systemClock.monotonicMs() > deadlineMs) return now;
    await systemClock.sleep(POLL_MS);
  }
}

/** Of what a pod used more for a while. */
const KEPT_SHARE = 0.4;

async function checkReturn(name: string, pid: number): Promise<void> {
  const exec = (script: string) => kubectl.ok(['exec', name, '--', '/bin/sh', '-c', script]);
  const before = await pssMib(pid);
  await exec(`dd if=/dev/zero of=/memory/x bs=1M count=${USED_MIB} 2>/dev/null`);
  const used = await pssMib(pid);
  assert.ok(used > before + USED_MIB / 2, `${before} MiB before, ${used} MiB with more in use`);
  const freedMs = systemClock.monotonicMs();
  await exec('rm /memory/x');
  // The emulator itself has grown meanwhile, by what it has translated.
  const limit = before + (used - before) * KEPT_SHARE;
  const left = await untilBelow(pid, limit);
  const afterMs = Math.round(systemClock.monotonicMs() - freedMs);
  const mib = [before, used, left].map((each) => each.toFixed(0)).join(', ');
  console.log(`${name}: before, in use, given back: ${mib} MiB of PSS; after ${afterMs} ms`);
  assert.ok(left < limit, `${left} MiB are left of ${used}, before there were ${before}`);
  // What comes back to the guest is as good as before.
  const sums = await exec(
    'dd if=/dev/urandom of=/memory/x bs=1M count=32 2>/dev/null; md5sum /memory/x; md5sum /memory/x',
  );
  const [first, second] = sums.split('\n');
  assert.ok(first?.endsWith('/memory/x'));
  assert.equal(first, second);
}

test('a VM that booted gives memory back', async () => {
  const { origin, pid } = await run('booted');
  assert.equal(origin, 'cold');
  await checkReturn('booted', pid);
});

test('a VM from a template gives memory back that was its own', async () => {
  for (let attempt = 1; ; attempt++) {
    const name = `clone-${attempt}`;
    const { origin, pid } = await run(name);
    if (origin === 'template') return checkReturn(name, pid);
    assert.ok(attempt < 10, 'no pod has come from a template');
    await cluster.client.delete(PODS, { namespace: NAMESPACE, name }, { gracePeriodSeconds: 0 });
  }
});
