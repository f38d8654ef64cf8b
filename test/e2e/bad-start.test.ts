import assert from 'node:assert/strict';
import { copyFile, mkdir, mkdtemp, open, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { execute } from '../../src/base/exec.ts';
import type { ExecResult } from '../../src/base/exec.ts';
import { NODES } from '../../src/client/resources.ts';
import { freePort, runCli, startCluster } from './support/cluster.ts';
import type { TestCluster } from './support/cluster.ts';

/**
 * Starts that cannot work: each ends with exit code 1 and one sentence that says what is wrong
 * and what to do, and changes nothing.
 */
const LAUNCHER = join(import.meta.dirname, '../../hypernetes');

let cluster: TestCluster;
let directory: string;

before(async () => {
  cluster = await startCluster();
  directory = await mkdtemp(join(tmpdir(), 'hn-'));
});
after(async () => {
  await cluster?.[Symbol.asyncDispose]();
  if (directory) await rm(directory, { recursive: true, force: true });
});

async function assertWell(): Promise<void> {
  const { items } = await cluster.client.list(NODES, {});
  assert.equal(items.length, 1);
  const components = (await cluster.status())?.components ?? [];
  const seen = components.map(({ state, restartCount }) => [state, restartCount]);
  assert.deepEqual(seen, [
    ['ready', 0],
    ['ready', 0],
    ['ready', 0],
  ]);
}

/** Exit code 1 and one line, the given one. */
function assertRefused(result: ExecResult, line: string | RegExp): void {
  const { exitCode, stdout, stderr } = result;
  assert.equal(exitCode, 1, stdout + stderr);
  assert.equal(stdout, '');
  assert.equal(stderr.trimEnd().split('\n').length, 1, stderr);
  if (typeof line === 'string') assert.equal(stderr, `hypernetes: ${line}\n`);
  else assert.match(stderr, line);
}

/** Ports of which `taken` is one that somebody has; the others are free. */
async function portArguments(option: string, taken: number): Promise<string[]> {
  const args: string[] = [];
  for (const name of ['--api-port', '--kubelet-port', '--registry-port']) {
    args.push(name, String(name === option ? taken : await freePort()));
  }
  return args;
}

test('a port that is taken is named, with the option that chooses another', async () => {
  const holder = createServer();
  await new Promise<void>((resolve) => holder.listen(0, '127.0.0.1', resolve));
  const { port: held } = holder.address() as { port: number };
  const cases = [
    ['--api-port', cluster.apiPort, 'API server', ['--detach']],
    ['--api-port', cluster.apiPort, 'API server', []],
    ['--kubelet-port', cluster.kubeletPort, 'kubelet', ['--detach']],
    ['--registry-port', held, 'embedded registry', ['--detach']],
  ] as const;
  try {
    for (const [at, [option, port, use, extra]] of cases.entries()) {
      const dataDir = join(directory, `port-${at}`);
      const args = [...(await portArguments(option, port)), '--node-name', 'other', ...extra];
      const result = await runCli(['--data-dir', dataDir, 'up', ...args]);
      const line = `Cannot start: port ${port} is taken (${use}). Choose another with ${option}.`;
      assertRefused(result, line);
      const left = await runCli(['--data-dir', dataDir, 'status']);
      assert.match(left.stdout, /nothing runs/);
    }
  } finally {
    await new Promise((resolve) => holder.close(resolve));
  }
  await assertWell();
});

test('a second start on a running data directory harms nobody', async () => {
  const config = await readFile(join(cluster.dataDir, 'config.json'), 'utf8');
  const pid = (await cluster.status())?.pid;
  for (const extra of [[], ['--detach']]) {
    const result = await cluster.cli('up', '--api-port', `${await freePort()}`, ...extra);
    const line =
      `Cannot start on this data directory: Hypernetes runs on it already, as process ${pid}. ` +
      'Look with "hypernetes status", end it with "hypernetes down", or use another --data-dir.';
    assertRefused(result, line);
  }
  assert.equal(await readFile(join(cluster.dataDir, 'config.json'), 'utf8'), config);
  assert.equal((await cluster.status())?.pid, pid);
  await assertWell();
});

test('a data directory of another version is refused and left as it is', async () => {
  const dataDir = join(directory, 'version');
  await mkdir(dataDir);
  const text = JSON.stringify({ version: 999, role: 'server', nodeName: 'future' });
  await writeFile(join(dataDir, 'config.json'), text);
  const line =
    `Cannot use the data directory ${dataDir}: its format is version 999, this is version 1. ` +
    'Nothing was changed. Use the Hypernetes that made it, or another directory with --data-dir.';
  for (const extra of [[], ['--detach']]) {
    assertRefused(await runCli(['--data-dir', dataDir, 'up', ...extra]), line);
  }
  assert.deepEqual(await readdir(dataDir), ['config.json']);
  assert.equal(await readFile(join(dataDir, 'config.json'), 'utf8'), text);
  await writeFile(join(dataDir, 'config.json'), '{"version":');
  assertRefused(await runCli(['--data-dir', dataDir, 'up']), /Cannot read .*config\.json: /);
  const strange = JSON.stringify({ version: 1, role: 'server', machine: 'pc' });
  await writeFile(join(dataDir, 'config.json'), strange);
  const refusal = /Cannot use .*config\.json: machine is "pc", wanted microvm or q35\./;
  assertRefused(await runCli(['--data-dir', dataDir, 'up']), refusal);
});

test('a store of another version is refused and left as it is', async () => {
  const dataDir = join(directory, 'store');
  const ports = await portArguments('', 0);
  await mkdir(join(dataDir, 'server'), { recursive: true });
  const path = join(dataDir, 'server/store.db');
  await copyFile(join(cluster.dataDir, 'server/store.db'), path);
  // The user version in the header of an SQLite file.
  const file = await open(path, 'r+');
  await file.write(Buffer.from([0, 0, 3, 231]), 0, 4, 60);
  await file.close();
  const before = await readFile(path);
  const result = await runCli(['--data-dir', dataDir, 'up', '--detach', ...ports]);
  assertRefused(result, /^hypernetes: Cannot open store ".*store\.db": .*it has format 999/);
  assert.deepEqual(await readFile(path), before);
  await assertWell();
});

test('a data directory that cannot be one is refused', async () => {
  const long = join(directory, 'x'.repeat(100));
  assertRefused(
    await runCli(['--data-dir', long, 'up']),
    `Cannot use the data directory ${long}: its path has ${long.length} bytes, ` +
      'at most 47 are possible, because unix sockets lie beneath it.',
  );
  const file = join(directory, 'file');
  await writeFile(file, 'mine\n');
  assertRefused(
    await runCli(['--data-dir', file, 'up']),
    `Cannot use the data directory ${file}: it is not a directory. Choose another with --data-dir.`,
  );
  assert.equal(await readFile(file, 'utf8'), 'mine\n');
});

/** Another user, who can read this project wherever it lies. */
const AS_NOBODY = [
  ...['setpriv', '--reuid', '65534', '--regid', '65534', '--clear-groups'],
  ...['--inh-caps', '+dac_read_search', '--ambient-caps', '+dac_read_search'],
];

test('without root there is one sentence, from the launcher and from the command', async () => {
  const [setpriv = '', ...args] = AS_NOBODY;
  const dataDir = join(directory, 'nobody');
  const launched = await execute(setpriv, [...args, LAUNCHER, '--data-dir', dataDir, 'up']);
  const line = 'not root: VMs, networks and jails need it. Run it with sudo.';
  assertRefused(launched, line);
  const main = join(import.meta.dirname, '../../src/cli/main.ts');
  const node = [process.execPath, ...process.execArgv, main, '--data-dir', dataDir, 'up'];
  const direct = await execute(setpriv, [...args, ...node]);
  assertRefused(direct, `Cannot run "up": ${line.replace(': VMs', ', and VMs')}`);
});

test('a disk that is too small is told before anything is installed', async () => {
  const dataDir = join(directory, 'small');
  await mkdir(dataDir);
  const script = 'mount -t tmpfs -o size=1m tmpfs "$1" && exec "$2" --data-dir "$1" status';
  const args = ['--mount', '--propagation', 'private', 'sh', '-c', script, 'sh', dataDir, LAUNCHER];
  const result = await execute('unshare', args);
  assertRefused(
    result,
    new RegExp(
      `1 MiB of disk are free at ${dataDir}, 3072 are needed: make room or use --data-dir`,
    ),
  );
});
