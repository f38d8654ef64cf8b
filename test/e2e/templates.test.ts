import assert from 'node:assert/strict';
import { readFile, readdir, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import type { Pod } from '../../src/api/types.generated.ts';
import { systemClock } from '../../src/base/clock.ts';
import { pushDemoImage } from '../../src/cli/demo/demo-image.ts';
import { PODS } from '../../src/client/resources.ts';
import { startCluster } from './support/cluster.ts';
import type { TestCluster } from './support/cluster.ts';
import { waitFor } from './support/wait.ts';

/**
 * Pods that start from a template, and from VMs that waited for them: nothing that has to be random
 * or of one pod alone is the same in two of them, and a template that is broken keeps none away.
 */
const CLONES = 50;
const NAMESPACE = 'default';
const WAIT_MS = 180_000;

let cluster: TestCluster;
let image: string;

before(async () => {
  cluster = await startCluster(['--warm-pool', 'fixed:4']);
  image = await pushDemoImage(cluster.registryPort);
});
after(() => cluster?.[Symbol.asyncDispose]());

/** Prints a line of each thing that no two pods may share, then waits. */
const TELL = [
  'echo "boot $(cat /proc/sys/kernel/random/boot_id)"',
  'echo "uuid $(cat /proc/sys/kernel/random/uuid)"',
  'echo "bytes $(head -c 16 /dev/urandom | md5sum)"',
  'echo "stack $(grep stack /proc/self/maps | cut -d- -f1)"',
  'echo "mac $(cat /sys/class/net/eth0/address)"',
  'echo "address $(ip -4 -o addr show dev eth0 | tr -s " " | cut -d" " -f4)"',
  'echo "hostname $(hostname)"',
  'echo "time $(date +%s)"',
].join('; ');

function pod(name: string, script: string): Pod {
  return {
    ...{ apiVersion: 'v1', kind: 'Pod', metadata: { namespace: NAMESPACE, name } },
    spec: {
      ...{ restartPolicy: 'Never', terminationGracePeriodSeconds: 0 },
      containers: [{ name: 'main', image, command: ['/bin/sh', '-c', script] }],
    },
  };
}

async function succeeded(name: string): Promise<Pod> {
  const key = { namespace: NAMESPACE, name };
  const ended = (each: Pod | undefined) => /Succeeded|Failed/.test(each?.status?.phase ?? '');
  const found = await waitFor(cluster.client, PODS, key, ended, WAIT_MS);
  assert.equal(found?.status?.phase, 'Succeeded', JSON.stringify(found?.status));
  return found ?? assert.fail();
}

/** How its VM came to be, as hyperd has noted it. */
async function originOf({ metadata }: Pod): Promise<string> {
  const path = join(cluster.dataDir, 'hyperd/pods', metadata.uid ?? '', 'pod.json');
  return (JSON.parse(await readFile(path, 'utf8')) as { origin: string }).origin;
}

async function logOf(name: string): Promise<string> {
  const path = `/api/v1/namespaces/${NAMESPACE}/pods/${name}/log`;
  const response = await cluster.transport.request({ method: 'GET', path });
  let log = '';
  for await (const chunk of response.body) log += Buffer.from(chunk).toString('utf8');
  return log;
}

async function run(name: string, script: string): Promise<{ origin: string; log: string }> {
  await cluster.client.create(PODS, pod(name, script));
  const origin = await originOf(await succeeded(name));
  const log = await logOf(name);
  await cluster.client.delete(PODS, { namespace: NAMESPACE, name }, { gracePeriodSeconds: 0 });
  return { origin, log };
}

const templatesDirectory = () => join(cluster.dataDir, 'hyperd/templates');

/** The files of the only template that is whole. */
async function templateFile(name: string): Promise<string> {
  for (;;) {
    const [id] = await readdir(templatesDirectory()).catch(() => []);
    const files = id ? await readdir(join(templatesDirectory(), id)) : [];
    if (id && files.includes('template.json')) return join(templatesDirectory(), id, name);
    await systemClock.sleep(50);
  }
}

test('the first pod boots, those that follow start from its template', async () => {
  const first = await run('first', 'echo hello');
  assert.deepEqual(first, { origin: 'cold', log: 'hello\n' });
  await templateFile('monitor');
  const second = await run('second', 'echo hello');
  assert.match(second.origin, /^(warm|template)$/);
  assert.equal(second.log, 'hello\n');
});

test(`in ${CLONES} pods of one template nothing random repeats`, async () => {
  await templateFile('monitor');
  const names = Array.from({ length: CLONES }, (_, i) => `clone-${i}`);
  await Promise.all(names.map((name) => cluster.client.create(PODS, pod(name, TELL))));
  const told = new Map<string, Set<string>>();
  const origins = new Set<string>();
  for (const name of names) {
    origins.add(await originOf(await succeeded(name)));
    const nowSeconds = systemClock.nowMs() / 1000;
    for (const line of (await logOf(name)).trim().split('\n')) {
      const [what = '', value = ''] = line.split(' ');
      assert.notEqual(value, '', `${name}: ${line}`);
      if (what === 'time') {
        assert.ok(Math.abs(nowSeconds - Number(value)) < WAIT_MS / 1000, `${name}: ${line}`);
        continue;
      }
      const values = told.get(what) ?? new Set();
      told.set(what, values.add(value));
    }
  }
  const kinds = ['address', 'boot', 'bytes', 'hostname', 'mac', 'stack', 'uuid'];
  assert.deepEqual([...told.keys()].sort(), kinds);
  for (const [what, values] of told) assert.equal(values.size, CLONES, `${what} repeats`);
  assert.ok(!origins.has('cold'), 'none of them booted');
  const deleted = names.map((name) =>
    cluster.client.delete(PODS, { namespace: NAMESPACE, name }, { gracePeriodSeconds: 0 }),
  );
  await Promise.all(deleted);
});

test('a clock that stood still while the VM waited is right in the pod', async () => {
  await systemClock.sleep(3_000);
  const { log } = await run('clock', 'date +%s');
  assert.ok(Math.abs(systemClock.nowMs() / 1000 - Number(log)) < 30, log);
});

test('a broken template keeps no pod away: it is made anew', async () => {
  const monitor = await templateFile('monitor');
  await truncate(monitor, 100);
  // Those that wait were started before.
  for (let i = 0; i < 8; i += 1) {
    const { origin, log } = await run(`broken-${i}`, 'echo hello');
    assert.equal(log, 'hello\n', `${i} ${origin}`);
    if (origin === 'cold') break;
  }
  await templateFile('monitor');
  const { log } = await run('after', 'echo hello');
  assert.equal(log, 'hello\n');
  const daemonLog = await readFile(join(cluster.dataDir, 'log/hyperd.log'), 'utf8');
  assert.match(daemonLog, /template is damaged/);
});
