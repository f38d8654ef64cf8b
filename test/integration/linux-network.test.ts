import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import type { Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { execute, run } from '../../src/base/exec.ts';
import type { Exec } from '../../src/base/exec.ts';
import { silentLog } from '../../src/base/log.ts';
import { seededRandom } from '../../src/base/random.ts';
import { networkConformance } from '../../src/network/conformance.ts';
import type { NetworkSpec, Port } from '../../src/network/driver.ts';
import { isLink, namesOf } from '../../src/network/linux/commands.ts';
import { createKernel } from '../../src/network/linux/kernel.ts';
import { createLinuxNetwork } from '../../src/network/linux/driver.ts';

const GREEN: NetworkSpec = {
  id: 'green',
  cidr: '10.77.0.0/24',
  gateway: '10.77.0.1',
  mtu: 1400,
  nat: true,
};

const API_SERVER = { address: '198.18.77.1', port: 16_443 };

async function make(stateDirectory: string, exec: Exec = execute) {
  const hostServices = [API_SERVER];
  const options = { stateDirectory, hostServices, exec, random: seededRandom(2), log: silentLog };
  return createLinuxNetwork(options);
}

async function temporary(): Promise<string> {
  return mkdtemp(join(tmpdir(), 'hypernetes-network-'));
}

/** Everything of one driver that the machine has: namespaces, devices, rules, settings. */
async function remains(stateDirectory: string): Promise<string[]> {
  const { scope } = namesOf(stateDirectory);
  const namespaces = await readdir('/run/netns').catch(() => []);
  const devices = JSON.parse(await run('ip', ['-json', 'link', 'show'])) as { ifname: string }[];
  const tables = await run('nft', ['list', 'tables']);
  const names = [...namespaces, ...devices.map((d) => d.ifname), ...tables.split('\n')];
  return names.filter(
    (name) => name.includes(`hn${scope}`) || name.includes(`hypernetes-${scope}`),
  );
}

networkConformance('linux network', async () => {
  const directory = await temporary();
  return {
    driver: await make(directory),
    restart: () => make(directory),
    dispose: async () => {
      assert.deepEqual(await remains(directory), []);
      await rm(directory, { recursive: true });
    },
  };
});

/** Puts a namespace of its own in the place of the VM: a veth with the tap's name. */
async function becomePod(port: Port): Promise<string> {
  const pod = `${port.netns}-${port.id}`;
  await run('ip', ['netns', 'add', pod]);
  const lines = [
    `link delete dev ${port.tapName}`,
    `link add ${port.tapName} type veth peer name eth0 address ${port.mac} netns ${pod}`,
    `link set ${port.tapName} master br0 up`,
  ];
  await run('ip', ['-n', port.netns, '-batch', '-'], { input: `${lines.join('\n')}\n` });
  const own = [
    'link set lo up',
    `addr add ${port.address} dev eth0`,
    'link set eth0 up',
    `route add default via ${port.gateway}`,
  ];
  await run('ip', ['-n', pod, '-batch', '-'], { input: `${own.join('\n')}\n` });
  return pod;
}

const CONNECT = `
const [host, port, timeout] = process.argv.slice(1);
const socket = require('node:net').connect({ host, port: Number(port), timeout: Number(timeout) });
const end = (text) => { console.log(text); socket.destroy(); };
socket.on('connect', () => end('connected')).on('timeout', () => end('silence'));
socket.on('error', (error) => end(error.code));
`;

/** `connected`, `ECONNREFUSED` (reached, but nobody listens), or another way of not being there. */
async function connect(namespace: string, host: string, port: number, timeoutMs: number) {
  const target = [host, String(port), String(timeoutMs)];
  const args = ['netns', 'exec', namespace, process.execPath, '-e', CONNECT, ...target];
  return (await run('ip', args)).trim();
}

const REACHED = ['connected', 'ECONNREFUSED'];

async function assertReached(namespace: string, host: string, port: number): Promise<void> {
  const answer = await connect(namespace, host, port, 10_000);
  assert.ok(REACHED.includes(answer), `${namespace} to ${host}:${port}: ${answer}`);
}

async function assertCutOff(namespace: string, host: string, port: number): Promise<void> {
  const answer = await connect(namespace, host, port, 700);
  assert.ok(!REACHED.includes(answer), `${namespace} to ${host}:${port}: ${answer}`);
}

const bare = (port: Port) => port.address.split('/')[0] ?? '';

test('linux network: pods reach each other and nothing that is not theirs', async () => {
  const directory = await temporary();
  const driver = await make(directory);
  const pods: string[] = [];
  try {
    await driver.ensureNetwork(GREEN);
    await driver.ensureNetwork({ ...GREEN, id: 'other' });
    const [a, b, c] = await Promise.all([
      driver.ensurePort({ id: 'a', networkId: 'green', ownerUid: 70_001 }),
      driver.ensurePort({ id: 'b', networkId: 'green', ownerUid: 70_002 }),
      driver.ensurePort({ id: 'c', networkId: 'other', ownerUid: 70_003, address: '10.77.0.99' }),
    ]);
    for (const port of [a, b, c]) pods.push(await becomePod(port));
    const [podA = '', podB = ''] = pods;
    await assertReached(podA, bare(b), 80);
    await assertCutOff(podA, '10.77.0.99', 80);
    await assertCutOff(podA, a.gateway, 22);

    const change = async (lines: string[]) => {
      await run('ip', ['-n', podB, '-batch', '-'], { input: `${lines.join('\n')}\n` });
    };
    await change([`addr del ${b.address} dev eth0`, 'addr add 10.77.0.200/24 dev eth0']);
    await assertCutOff(podB, bare(a), 80);
    await change(['addr del 10.77.0.200/24 dev eth0', `addr add ${b.address} dev eth0`]);
    await assertReached(podB, bare(a), 80);
    await change(['link set eth0 address 02:00:00:00:00:99']);
    await assertCutOff(podB, bare(a), 80);
  } finally {
    for (const pod of pods) await run('ip', ['netns', 'delete', pod]);
    for (const id of ['a', 'b', 'c']) await driver.deletePort(id);
    for (const id of ['green', 'other']) await driver.deleteNetwork(id);
    assert.deepEqual(await remains(directory), []);
    await rm(directory, { recursive: true });
  }
});

async function listen(host: string, port: number): Promise<Server> {
  const server = createServer((socket) => socket.end());
  server.listen(port, host);
  await once(server, 'listening');
  return server;
}

test('linux network: pods go out by NAT, and of the host reach the API server alone', async () => {
  const directory = await temporary();
  const driver = await make(directory);
  const { scope } = namesOf(directory);
  // Stands for the world: a namespace behind a device of the host.
  const [world, device] = [`hnworld${scope}`, `hnw${scope}`];
  const servers: Server[] = [];
  let pod: string | undefined;
  try {
    await run('ip', ['netns', 'add', world]);
    const host = [
      `link add ${device} type veth peer name eth0 netns ${world}`,
      `addr add ${API_SERVER.address}/30 dev ${device}`,
      `link set ${device} up`,
    ];
    await run('ip', ['-batch', '-'], { input: `${host.join('\n')}\n` });
    const peer = 'addr add 198.18.77.2/30 dev eth0\nlink set eth0 up\nlink set lo up\n';
    await run('ip', ['-n', world, '-batch', '-'], { input: peer });
    await createKernel(execute).setForwarding(device, true);
    for (const port of [API_SERVER.port, API_SERVER.port + 1]) {
      servers.push(await listen(API_SERVER.address, port));
    }
    await driver.ensureNetwork(GREEN);
    const port = await driver.ensurePort({ id: 'a', networkId: 'green', ownerUid: 70_001 });
    pod = await becomePod(port);
    await assertReached(pod, API_SERVER.address, API_SERVER.port);
    await assertCutOff(pod, API_SERVER.address, API_SERVER.port + 1);
    await assertCutOff(pod, '169.254.64.1', API_SERVER.port + 1);
    await assertReached(pod, '198.18.77.2', 80);
    await assertCutOff(pod, '169.254.169.254', 80);
  } finally {
    for (const server of servers) server.close();
    if (pod !== undefined) await run('ip', ['netns', 'delete', pod]);
    await driver.deletePort('a');
    await driver.deleteNetwork('green');
    await run('ip', ['link', 'delete', device]).catch(() => '');
    await run('ip', ['netns', 'delete', world]).catch(() => '');
    assert.deepEqual(await remains(directory), []);
    await rm(directory, { recursive: true });
  }
});

/** Lets `count` commands pass and then fails every one, as a killed daemon's never ran. */
function failingAfter(count: number): Exec {
  let left = count;
  return (command, args, options) => {
    if (left-- > 0) return execute(command, args, options);
    return Promise.reject(new Error('injected failure'));
  };
}

test('linux network: whatever step a crash comes at, doing it again completes it', async () => {
  const directory = await temporary();
  let steps = 0;
  try {
    for (let whole = false; !whole; steps += 1) {
      try {
        const crashing = await make(directory, failingAfter(steps));
        await crashing.ensureNetwork(GREEN);
        await crashing.ensurePort({ id: 'a', networkId: 'green', ownerUid: 70_001 });
        await crashing.deletePort('a');
        await crashing.deleteNetwork('green');
        whole = true;
      } catch (error) {
        assert.match(String(error), /injected failure/);
      }
      const again = await make(directory);
      await again.ensureNetwork(GREEN);
      const port = await again.ensurePort({ id: 'a', networkId: 'green', ownerUid: 70_001 });
      const table = await run('ip', ['netns', 'exec', port.netns, 'nft', 'list', 'ruleset']);
      assert.match(
        table,
        new RegExp(`${port.tapName}" . ${port.mac} . ${port.address.split('/')[0]}`),
      );
      await again.deletePort('a');
      await again.deleteNetwork('green');
      assert.deepEqual(await remains(directory), [], `after a crash at step ${steps}`);
      assert.ok(steps < 60);
    }
    assert.ok(steps > 10, 'the failures were spread over all steps');
  } finally {
    await rm(directory, { recursive: true });
  }
});

test('linux network: what a deleted state has left on the host goes at the next start', async () => {
  const directory = await temporary();
  const other = await temporary();
  try {
    const forgotten = await make(directory);
    const neighbour = await make(other);
    for (const driver of [forgotten, neighbour]) {
      await driver.ensureNetwork(GREEN);
      await driver.ensurePort({ id: 'a', networkId: 'green', ownerUid: 70_001 });
    }
    const kept = await remains(other);
    await rm(directory, { recursive: true });
    const driver = await make(directory);
    assert.deepEqual(await remains(directory), []);
    assert.deepEqual(await remains(other), kept);
    await driver.ensureNetwork(GREEN);
    await driver.ensurePort({ id: 'b', networkId: 'green', ownerUid: 70_002 });
    await driver.deletePort('b');
    await driver.deleteNetwork('green');
    assert.deepEqual(await remains(directory), []);
    await neighbour.deletePort('a');
    await neighbour.deleteNetwork('green');
    assert.deepEqual(await remains(other), []);
  } finally {
    await rm(directory, { recursive: true, force: true });
    await rm(other, { recursive: true });
  }
});

test('linux network: what is deleted goes from the host also when that cannot be recorded', async () => {
  const directory = await temporary();
  try {
    const driver = await make(directory);
    await driver.ensureNetwork(GREEN);
    await driver.ensurePort({ id: 'a', networkId: 'green', ownerUid: 70_001 });
    assert.notDeepEqual(await remains(directory), []);
    await rm(directory, { recursive: true });
    await assert.rejects(driver.deletePort('a'), { code: 'ENOENT' });
    await assert.rejects(driver.deleteNetwork('green'), { code: 'ENOENT' });
    assert.deepEqual(await remains(directory), []);
    assert.deepEqual(await driver.list(), { networks: [], ports: [] });
  } finally {
    // A driver that has no record of it removes whatever the test has found.
    await make(directory);
    await rm(directory, { recursive: true, force: true });
  }
});

test('linux network: a device keeps its setting though the record of it was deleted', async () => {
  const directory = await temporary();
  const device = `hnw${namesOf(directory).scope}`;
  const guard = `iifname "${device}" oifname != "hn*" drop`;
  const { table } = namesOf(directory);
  const kernel = createKernel(execute);
  try {
    await run('ip', ['link', 'add', device, 'type', 'bridge']);
    await kernel.setForwarding(device, true);
    const chain = `chain forward {\ntype filter hook forward priority filter\n${guard}\n}`;
    await run('nft', ['-f', '-'], { input: `table inet ${table} {\n${chain}\n}\n` });
    await make(directory);
    // Another cluster on this machine may need it to stay on.
    const others = [...(await kernel.devices(undefined))].some(isLink);
    assert.equal(await kernel.isForwarding(device), others);
    assert.deepEqual(await remains(directory), []);
  } finally {
    await run('ip', ['link', 'delete', device]).catch(() => '');
    await rm(directory, { recursive: true });
  }
});
