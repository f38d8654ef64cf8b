import assert from 'node:assert/strict';
import { mkdtemp, readFile, readdir, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { NAMESPACES, NODES } from '../../src/client/resources.ts';
import { MACHINE_TYPES } from '../../src/hyperd/vmm/qemu/models.ts';
import { runCli, startCluster } from './support/cluster.ts';
import type { TestCluster } from './support/cluster.ts';

/** The product's own commands, as a person or a script uses them. */
let cluster: TestCluster;
before(async () => {
  cluster = await startCluster();
});
after(() => cluster[Symbol.asyncDispose]());

interface DemoResult {
  namespace: string;
  pods: {
    name: string;
    bootId: string;
    hostname: string;
    address: string;
    origin: string;
    timeline: object;
  }[];
  exec: string;
  followed: string[];
}

test('demo --json shows pods, each with a VM of its own, the last one with one that waited, and cleans up', async () => {
  const { exitCode, stdout, stderr } = await cluster.cli('demo', '--json');
  assert.equal(exitCode, 0, stderr);
  const result = JSON.parse(stdout) as DemoResult;
  assert.equal(result.pods.length, 3);
  // Under much load none may wait in time, and then the pod comes to its VM another way.
  assert.match(result.pods[2]?.origin ?? '', /^(warm|template|cold)$/);
  const [first, second] = result.pods;
  assert.ok(first && second);
  assert.match(first.bootId, /^[0-9a-f]{8}-[0-9a-f-]{27}$/);
  const hostBootId = await readFile('/proc/sys/kernel/random/boot_id', 'utf8');
  for (const field of ['bootId', 'hostname', 'address'] as const) {
    assert.notEqual(first[field], second[field], field);
  }
  assert.notEqual(first.bootId, hostBootId.trim(), 'a pod does not share the kernel of the host');
  assert.equal(result.exec, first.bootId, 'exec runs in the VM of the pod');
  assert.ok(result.followed.length >= 3);
  for (const { timeline } of result.pods) {
    const stages = ['admitted', 'scheduled', 'image', 'network', 'vm', 'guest', 'first-byte'];
    for (const stage of stages) assert.ok(stage in timeline, `stage ${stage} is stamped`);
  }
  const namespaces = await cluster.client.list(NAMESPACES);
  const left = namespaces.items.find(({ metadata }) => metadata.name === result.namespace);
  assert.ok(!left || left.metadata.deletionTimestamp, 'the namespace of the demo is being deleted');
});

test('status tells every component, and exits with 3 where nothing runs', async () => {
  const { stdout, exitCode } = await cluster.cli('status');
  assert.equal(exitCode, 0);
  for (const name of ['hyperd', 'server', 'kubelet']) {
    assert.match(stdout, new RegExp(`^${name} +ready`, 'm'));
  }
  const elsewhere = await runCli(['--data-dir', join(cluster.dataDir, 'nothing'), 'status']);
  assert.equal(elsewhere.exitCode, 3);
  assert.match(elsewhere.stdout, /nothing runs on .* start it with "hypernetes up"/);
});

test('kubeconfig prints what kubectl takes, and its path', async () => {
  const { stdout } = await cluster.cli('kubeconfig');
  assert.match(stdout, /^kind: Config$/m);
  assert.ok(stdout.includes(`https://127.0.0.1:${cluster.apiPort}`));
  assert.equal((await cluster.cli('kubeconfig', '--path')).stdout.trim(), cluster.kubeconfig);
});

test('logs prints the components, and names them when one is unknown', async () => {
  const { stdout } = await cluster.cli('logs', 'server', '-n', '5');
  assert.match(stdout, /"component":"server"/);
  const unknown = await cluster.cli('logs', 'nobody');
  assert.equal(unknown.exitCode, 1);
  assert.match(unknown.stderr, /No log of "nobody".*there are: .*server/);
});

test('token prints a command with which a machine can join', async () => {
  const { stdout } = await cluster.cli('token', 'create', '--ttl', '30m');
  const command =
    /^hypernetes node --server https:\/\/\S+ --token [0-9a-f]{64}::[a-z0-9]{6}\.[a-z0-9]{16}( |$)/;
  assert.match(stdout.trim(), command);
  const bad = await cluster.cli('token', 'create', '--ttl', 'soon');
  assert.match(bad.stderr, /Cannot read --ttl "soon"/);
});

test('doctor finds out what the machine can do by doing it', async () => {
  const { stdout, exitCode } = await cluster.cli('doctor', '--json');
  assert.equal(exitCode, 0, stdout);
  const report = JSON.parse(stdout) as {
    able: boolean;
    findings: { name: string; verdict: string; detail: string; consequence: string }[];
  };
  assert.equal(report.able, true);
  const machines = report.findings.find(({ name }) => name === 'virtual machines');
  assert.match(machines?.detail ?? '', /(kvm|tcg): a probe VM was booted/);
  for (const machineType of MACHINE_TYPES) {
    const suite = report.findings.find(({ name }) => name === `suite of ${machineType}`);
    const isRun = machines?.verdict === 'good';
    assert.match(suite?.detail ?? '', isRun ? /^(\d+) of \1 cases passed/ : /^\d+ cases not run/);
  }
  for (const { name, verdict, consequence } of report.findings) {
    assert.equal(consequence === '', verdict === 'good', `${name} says what a limit means`);
  }
});

test('doctor says so when no VM can be booted, with KVM or without', async () => {
  const assets = process.env['HYPERNETES_ASSETS_DIR'] ?? join(cluster.dataDir, 'assets');
  const broken = await mkdtemp(join(tmpdir(), 'hn-doctor-'));
  try {
    for (const name of await readdir(assets)) await symlink(join(assets, name), join(broken, name));
    // It can do all but start a cell, as in a container that may not make namespaces.
    const jail = join(broken, 'hyperjail');
    await rm(jail);
    const refusal =
      'echo "hyperjail: cannot make namespaces: Operation not permitted" >&2; exit 125';
    const script = `#!/bin/sh\n[ "$1" != tsc ] || exec ${join(assets, 'hyperjail')} tsc\n${refusal}\n`;
    await writeFile(jail, script, { mode: 0o755 });
    const env = { HYPERNETES_ASSETS_DIR: broken };
    const { stdout, exitCode } = await runCli(['--data-dir', join(broken, 'data'), 'doctor'], env);
    assert.equal(exitCode, 1, stdout);
    assert.match(stdout, /MISSING +virtual machines +.*cannot make namespaces/);
    assert.match(stdout, /No VM could be booted: pods cannot run\./);
    assert.match(stdout, /Pods cannot run on this machine\.\n$/);
  } finally {
    await rm(broken, { recursive: true, force: true });
  }
});

test('the node is Ready and says what it is', async () => {
  const [node] = (await cluster.client.list(NODES)).items;
  const ready = node?.status?.conditions?.find(({ type }) => type === 'Ready');
  assert.equal(ready?.status, 'True');
  assert.match(node?.status?.nodeInfo?.containerRuntimeVersion ?? '', /^hyper:\/\//);
});
