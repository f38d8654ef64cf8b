import assert from 'node:assert/strict';
import { readFile, readdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { env } from 'node:process';
import { after, before, test } from 'node:test';
import type { Pod } from '../../src/api/types.generated.ts';
import { pushDemoImage } from '../../src/cli/demo/demo-image.ts';
import { EVENTS, PODS } from '../../src/client/resources.ts';
import { startCluster } from './support/cluster.ts';
import type { TestCluster } from './support/cluster.ts';
import { waitFor } from './support/wait.ts';

/**
 * An operator brings a kernel, and a pod boots it. The kernel is Debian's once more, as its package
 * unpacks: what is tried is the way, not the kernel.
 */
const KERNEL = 'hypernetes.io/kernel';

let cluster: TestCluster;
let image: string;
let packageDirectory: string;

before(async () => {
  cluster = await startCluster();
  image = await pushDemoImage(cluster.registryPort);
  const assets = env['HYPERNETES_ASSETS_DIR'] ?? '/var/lib/hypernetes/assets';
  const unpacked = join(dirname(assets), 'setup/kernel');
  packageDirectory = join(unpacked, (await readdir(unpacked))[0] ?? '');
});
after(() => cluster?.[Symbol.asyncDispose]());

interface ListedKernel {
  names: string[];
  isDefault: boolean;
  podCount?: number;
}

async function kernels(): Promise<ListedKernel[]> {
  const { stdout } = await cluster.cli('kernel', 'list', '--json');
  return JSON.parse(stdout) as ListedKernel[];
}

const podOf = (name: string, kernel: string): Pod => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name, namespace: 'default', annotations: { [KERNEL]: kernel } },
  spec: {
    terminationGracePeriodSeconds: 0,
    containers: [{ name: 'main', image, command: ['sleep', '1000'] }],
  },
});

test('a kernel that cannot run a pod is refused, with what it lacks, and nothing is kept', async () => {
  const boot = join(packageDirectory, 'boot');
  const [imageName = ''] = (await readdir(boot)).filter((name) => name.startsWith('vmlinuz-'));
  const config = join(boot, imageName.replace('vmlinuz', 'config'));
  const without = await cluster.cli(
    ...['kernel', 'import', 'mine', join(boot, imageName), '--config', config],
  );
  assert.equal(without.exitCode, 1);
  assert.match(without.stderr, /CONFIG_EROFS_FS=y, is m \(images are erofs\)/);
  const script = join(cluster.dataDir, 'script');
  await writeFile(script, '#!/bin/sh\n');
  const strange = await cluster.cli('kernel', 'import', 'mine', script);
  assert.match(strange.stderr, /neither a bzImage nor an ELF file/);
  const booted = await cluster.cli('kernel', 'import', 'mine', join(boot, imageName));
  assert.equal(booted.exitCode, 1);
  assert.match(
    booted.stderr,
    /does not run a pod on qemu-\w+: .* It seems to lack CONFIG_VIRTIO_CONSOLE/,
  );
  assert.deepEqual(
    (await kernels()).map(({ names }) => names),
    [['debian']],
  );
});

test('a pod waits for its kernel, boots it once it is imported, and holds it', async () => {
  const key = { namespace: 'default', name: 'own' };
  await cluster.client.create(PODS, podOf('own', 'mine'));
  const condition = (pod: Pod | undefined) =>
    pod?.status?.conditions?.find(({ type }) => type === 'PodReadyToStartContainers');
  const words = /Cannot find kernel "mine" on this node/;
  await waitFor(cluster.client, PODS, key, (pod) => words.test(condition(pod)?.message ?? ''));
  const { items } = await cluster.client.list(EVENTS, { namespace: 'default' });
  assert.ok(items.some((event) => words.test(String(event['message']))));

  const imported = await cluster.cli('kernel', 'import', 'mine', packageDirectory);
  assert.equal(imported.exitCode, 0, imported.stderr);
  const running = (pod: Pod | undefined) => pod?.status?.phase === 'Running';
  await waitFor(cluster.client, PODS, key, running);
  const listed = (await kernels()).find(({ names }) => names.includes('mine'));
  assert.equal(listed?.podCount, 1);
  const held = await cluster.cli('kernel', 'remove', 'mine');
  assert.match(held.stderr, /Cannot remove kernel "mine": 1 pods of this node run it\./);

  await cluster.client.delete(PODS, key);
  await waitFor(cluster.client, PODS, key, (pod) => pod === undefined);
  const used = await cluster.cli('kernel', 'use', 'mine');
  assert.match(used.stdout, /Pods that start from now on boot "mine"/);
  assert.match((await cluster.cli('kernel', 'remove', 'mine')).stderr, /it is the default/);
  await cluster.cli('kernel', 'use', 'debian');
  assert.equal((await cluster.cli('kernel', 'remove', 'mine')).exitCode, 0);
  assert.deepEqual(await readdir(join(cluster.dataDir, 'kernels/names')), []);
  await assert.rejects(readFile(join(cluster.dataDir, 'kernels/default')), { code: 'ENOENT' });
});
