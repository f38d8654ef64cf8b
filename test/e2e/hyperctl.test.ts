import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import type { ImageStatus, PodState } from '../../src/api/hyperd.ts';
import { execute } from '../../src/base/exec.ts';
import type { ExecResult } from '../../src/base/exec.ts';
import { demoImage } from '../../src/cli/demo/demo-image.ts';
import { buildImage } from '../../src/hyperd/registry/build.ts';
import { writeTar } from '../../src/hyperd/image/tar-write.ts';
import type { TarMember } from '../../src/hyperd/image/tar-write.ts';
import { hostState, NOTHING, vmUids } from './support/leftovers.ts';
import { startSession, startTerminal } from './support/session.ts';

/** `hyperctl` as a new user has it, on a machine with no Kubernetes at all: VMs are real. */

const MAIN = join(import.meta.dirname, '../../src/cli/hyperctl/main.ts');
const TIMEOUT_MS = 60_000;
const NODE = [...process.execArgv, MAIN];

let dataDir = '';
let archive = '';
const uids = new Set<number>();
before(async () => {
  dataDir = await mkdtemp(join(tmpdir(), 'hc-'));
  archive = join(dataDir, 'busybox.tar');
  await writeFile(archive, await busyboxArchive());
});
after(async () => {
  await cli('daemon', 'stop', '--remove-pods');
  await rm(dataDir, { recursive: true, force: true });
});

const args = (...words: string[]) => [...NODE, '--data-dir', dataDir, ...words];
const cli = (...words: string[]): Promise<ExecResult> =>
  execute(process.execPath, args(...words), { timeoutMs: TIMEOUT_MS });

/** What it prints, when it succeeds. */
async function ok(...words: string[]): Promise<string> {
  const { exitCode, stdout, stderr } = await cli(...words);
  assert.equal(exitCode, 0, `${words.join(' ')}: ${stderr}`);
  return stdout.trimEnd();
}

async function pod(name: string): Promise<PodState> {
  for (const uid of await vmUids(dataDir)) uids.add(uid);
  const [state] = JSON.parse(await ok('pod', 'info', name)) as PodState[];
  assert.ok(state);
  return state;
}

/** Of this machine's own busybox, as `docker save` writes it. */
async function busyboxArchive(): Promise<Buffer> {
  const image = await buildImage({ ...(await demoImage()), compression: 'none' });
  const file = (path: string, content: Uint8Array): TarMember => ({ path, type: 'file', content });
  const blobs = [...image.blobs];
  const layers = blobs.filter(([digest]) => digest !== image.id);
  const manifest = [
    {
      Config: 'config.json',
      RepoTags: ['busybox:e2e'],
      Layers: layers.map((_, i) => `layer-${i}.tar`),
    },
  ];
  return writeTar([
    file('config.json', image.blobs.get(image.id) ?? Buffer.alloc(0)),
    ...layers.map(([, bytes], i) => file(`layer-${i}.tar`, bytes)),
    file('manifest.json', Buffer.from(JSON.stringify(manifest))),
  ]);
}

test('without hyperd a command says how to start it, and load starts it', async () => {
  const away = await cli('ps');
  assert.equal(away.exitCode, 1);
  assert.match(
    away.stderr,
    /no hyperd runs on this data directory. Start it with "hyperctl daemon/,
  );
  const loaded = await cli('image', 'load', archive);
  assert.equal(loaded.stdout.trim(), 'busybox:e2e', loaded.stderr);
  assert.match(loaded.stderr, /hyperd does not run here, starting it/);
  const images = JSON.parse(await ok('image', 'ls', '--format', 'json')) as ImageStatus[];
  assert.deepEqual(
    images.map(({ references }) => references),
    [['docker.io/library/busybox:e2e']],
  );
  assert.match(await ok('info'), /^HYPERD +\d/m);
});

test('run -it gives a terminal with its size and keys, returns the exit code, removes the pod', async () => {
  const words = ['run', '-it', '--rm', '--name', 'term', 'busybox:e2e', 'sh'];
  const size = { rows: 31, columns: 97 };
  await using terminal = await startTerminal(process.execPath, args(...words), size);
  await terminal.until(/\/ # /);
  terminal.send('stty size; tty; hostname\r');
  await terminal.until(/31 97\s+\/dev\/pts\/0\s+term\s/);
  await terminal.resize(40, 120);
  terminal.send('sleep 0.2; stty size\r');
  await terminal.until(/40 120\s/);
  terminal.send('exit 7\r');
  assert.equal(await terminal.exited, 7);
  assert.equal(await ok('ps', '-a', '-q'), '');
});

test('a pod in the background: logs, exec, stats, ports, pause, a restart of hyperd, wait', async () => {
  const script =
    'echo $WORD > /tmp/index.html; httpd -p 80 -h /tmp; i=0; ' +
    'while [ ! -e /tmp/end ]; do i=$((i+1)); echo tick $i; sleep 0.2; done; exit 9';
  const how = ['-d', '--name', 'web', '-e', 'WORD=hello', '-p', '127.0.0.1:0:80', '-m', '64m'];
  assert.equal(await ok('run', ...how, 'busybox:e2e', 'sh', '-c', script), 'web');
  const running = await pod('web');
  const { hostPort = 0 } = running.ports[0] ?? {};
  assert.match(await ok('ps'), new RegExp(`^web +busybox:e2e +Running .*:${hostPort}->80`, 'm'));
  await using logs = startSession(process.execPath, args('logs', '-f', 'web'));
  // httpd listens before it goes to the background; until then the port is reset, as it should be.
  await logs.until(/tick 2\n/);
  assert.equal(await fetched(hostPort), 'hello');
  assert.match(await ok('exec', 'web', 'sh', '-c', 'echo $WORD $0'), /^hello sh$/);
  assert.equal((await cli('exec', 'web', 'sh', '-c', 'exit 5')).exitCode, 5);
  assert.equal((await cli('exec', 'web', 'nothing')).exitCode, 127);
  assert.match(await ok('stats', 'web', '--no-stream'), /^web +\d+\.\d % +\d/m);
  assert.match(await ok('vm', 'ls'), /^web +web +running/m);
  const taken = await cli('run', '-d', '-p', `127.0.0.1:${hostPort}:80`, 'busybox:e2e', 'true');
  assert.equal(taken.exitCode, 125);
  assert.match(
    taken.stderr,
    new RegExp(`Cannot listen on port ${hostPort} of 127.0.0.1: it is taken`),
  );

  await ok('update', '--cpus', '0.5', '-m', '48m', 'web');
  const held = await ok(
    'exec',
    'web',
    'cat',
    '/sys/fs/cgroup/cpu.max',
    '/sys/fs/cgroup/memory.max',
  );
  assert.deepEqual(held.split('\n'), ['50000 100000', String(48 << 20)]);
  const more = await cli('update', '--cpus', '2', 'web');
  assert.match(more.stderr, /Cannot give pod "web" 2 CPUs: it was started with 1 processors/);
  const large = await cli('update', '-m', '1g', 'web');
  assert.match(large.stderr, /the VM was started with \d+ bytes in all/);
  assert.match((await cli('update', 'web')).stderr, /say --memory or --cpus/);

  await ok('pause', 'web');
  const refused = await cli('exec', 'web', 'true');
  assert.match(refused.stderr, /Pod "web" is paused: unpause it first/);
  assert.match(await ok('daemon', 'stop'), /pods that ran run on/);
  assert.notEqual(await logs.exited, 137, 'logs end with hyperd');
  await ok('daemon', '--detach');
  assert.match(await ok('ps'), /^web .* Paused /m);
  await ok('unpause', 'web');
  const driftS = Math.abs(Number(await ok('exec', 'web', 'date', '+%s')) - Date.now() / 1000);
  assert.ok(driftS < 2, `the guest's clock is ${driftS} s off`);
  assert.equal(await fetched(hostPort), 'hello', 'the port leads there again');

  const waiting = ok('wait', 'web');
  await ok('exec', 'web', 'touch', '/tmp/end');
  assert.equal(await waiting, '9');
  const ticks = (await ok('logs', 'web')).split('\n');
  assert.deepEqual(
    ticks,
    ticks.map((_, i) => `tick ${i + 1}`),
    'not one line is lost or doubled',
  );
  assert.deepEqual((await ok('logs', '--tail', '1', 'web')).split('\n'), ticks.slice(-1));
});

test('a pod that was let go of is taken up again, and started again when it has ended', async () => {
  const words = ['run', '-it', '--name', 'keep', 'busybox:e2e', 'sh'];
  const size = { rows: 24, columns: 80 };
  {
    await using terminal = await startTerminal(process.execPath, args(...words), size);
    await terminal.until(/\/ # /);
    terminal.send('word=kept\r\x10\x11');
    assert.equal(await terminal.exited, 0);
    assert.match(terminal.output, /let go of "keep"/);
  }
  await pod('keep');
  {
    await using terminal = await startTerminal(process.execPath, args('attach', 'keep'), size);
    terminal.send('echo is $word\r');
    await terminal.until(/is kept\s/);
    terminal.send('exit 0\r');
    assert.equal(await terminal.exited, 0);
  }
  const bootId = (await pod('keep')).guest?.bootId;
  await ok('start', 'keep');
  await ok('stop', '-t', '0', 'keep');
  assert.notEqual((await pod('keep')).guest?.bootId, bootId, 'it was another machine');
});

test('what is removed leaves nothing behind, neither do pods that ended by themselves', async () => {
  assert.deepEqual((await ok('rm', '--all')).split('\n').sort(), ['keep', 'web']);
  await ok('image', 'rm', 'busybox:e2e');
  await ok('daemon', 'stop');
  const { files, ...state } = await hostState(dataDir, uids);
  assert.deepEqual(state, NOTHING);
  const kept = files.filter((file) =>
    /pods\/|disks\/|blobs\/.*\/|leases\/|ingest\/|\.sock$/.test(file),
  );
  assert.deepEqual(kept, []);
});

/** What a server behind a port says, asked as HTTP/1.0 has it. */
async function fetched(port: number): Promise<string> {
  const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
  await once(socket, 'connect');
  socket.write('GET / HTTP/1.0\r\n\r\n');
  let text = '';
  for await (const chunk of socket.setEncoding('utf8')) text += chunk;
  return text.split('\r\n\r\n')[1]?.trim() ?? text;
}
