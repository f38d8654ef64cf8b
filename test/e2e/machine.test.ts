import assert from 'node:assert/strict';
import { readFile, readdir } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import type { Pod } from '../../src/api/types.generated.ts';
import { pushDemoImage } from '../../src/cli/demo/demo-image.ts';
import { PODS } from '../../src/client/resources.ts';
import { startCluster } from './support/cluster.ts';
import type { TestCluster } from './support/cluster.ts';
import { waitFor } from './support/wait.ts';

/** Pods on q35, and what becomes of them when their node goes back to microvm. */
let cluster: TestCluster;
let image: string;

before(async () => {
  cluster = await startCluster(['--machine', 'q35', '--warm-pool', 'off']);
  image = await pushDemoImage(cluster.registryPort);
});
after(() => cluster?.[Symbol.asyncDispose]());

async function run(name: string): Promise<Pod> {
  const spec = {
    terminationGracePeriodSeconds: 0,
    containers: [{ name: 'main', image, command: ['sleep', '1000'] }],
  };
  const key = { namespace: 'default', name };
  await cluster.client.create(PODS, { apiVersion: 'v1', kind: 'Pod', metadata: key, spec });
  return (await ready(name)) as Pod;
}

function ready(name: string): Promise<Pod | undefined> {
  const isReady = (pod: Pod | undefined) =>
    pod?.status?.containerStatuses?.every((container) => container.ready) === true;
  return waitFor(cluster.client, PODS, { namespace: 'default', name }, isReady);
}

/** Values of `-machine` of the emulators that run a pod. */
async function machinesOf({ metadata }: Pod): Promise<string[]> {
  const found: string[] = [];
  for (const pid of await readdir('/proc')) {
    const text = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
    const words = text.split('\0');
    if (!words[0]?.includes('qemu') || !words.includes(`hypernetes-${metadata.uid}`)) continue;
    found.push(words[words.indexOf('-machine') + 1]?.split(',')[0] ?? '');
  }
  return found;
}

test('up --machine decides what pods run on from then on; those that run stay as they are', async () => {
  const first = await run('first');
  assert.deepEqual(await machinesOf(first), ['q35']);
  assert.match((await cluster.cli('status')).stdout, /^server \S+, .* VMs of q35, /);

  const down = await cluster.cli('down', '--keep-pods');
  assert.equal(down.exitCode, 0, down.stderr);
  const wrong = await cluster.cli('up', '--machine', 'pc');
  assert.match(
    wrong.stderr,
    /--machine <model>.*'pc' is invalid\. Allowed choices are microvm, q35/,
  );
  const up = await cluster.cli('up', '--detach', '--machine', 'microvm');
  assert.equal(up.exitCode, 0, up.stderr);
  assert.equal((await cluster.status())?.machine, 'microvm');

  const second = await run('second');
  assert.deepEqual(await machinesOf(second), ['microvm']);
  const kept = await ready('first');
  assert.equal(kept?.status?.containerStatuses?.[0]?.restartCount, 0);
  assert.equal(kept?.status?.podIP, first.status?.podIP);
  assert.deepEqual(await machinesOf(first), ['q35']);
});
