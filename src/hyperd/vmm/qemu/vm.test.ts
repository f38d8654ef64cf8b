import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { duplexPair } from 'node:stream';
import type { Duplex } from 'node:stream';
import { afterEach, beforeEach, test } from 'node:test';
import { systemClock } from '../../../base/clock.ts';
import { start } from '../../../base/exec.ts';
import { silentLog } from '../../../base/log.ts';
import type { TemplateUse, Vm } from '../hypervisor.ts';
import { processStat } from './jail.ts';
import type { JailProcesses } from './jail.ts';
import { connectQmp } from './qmp.ts';
import type { QmpClient } from './qmp.ts';
import { loadState } from './template.ts';
import { createQemuVm } from './vm.ts';

/*
 * The driver against what QEMU's monitor says, word by word: recorded where a machine could do it,
 * and for what only KVM does written after QEMU's source.
 */
const TRANSCRIPTS = join(import.meta.dirname, 'vm.transcripts.txt');

let directory: string;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'hypernetes-vm-'));
});

afterEach(() => rm(directory, { recursive: true }));

interface Played {
  qmp: QmpClient;
  /** The monitor's end. */
  peer: Duplex;
  /** Resolves when everything of the transcript was said; rejects at the first other word. */
  done: Promise<void>;
}

/** A monitor that says its part of a transcript, and nothing that was not asked for in it. */
async function play(title: string): Promise<Played> {
  const text = await readFile(TRANSCRIPTS, 'utf8');
  const section = text.split(/^# /m).find((part) => part.startsWith(`${title}\n`));
  assert.ok(section !== undefined, `there is a transcript "${title}"`);
  const lines = section.split('\n').filter((line) => /^[<>] /.test(line));
  const [ours, peer] = duplexPair();
  const done = perform(peer, lines);
  done.catch((error: unknown) => peer.destroy(error as Error));
  peer.on('error', () => {});
  return { qmp: await connectQmp(ours), peer, done };
}

async function perform(peer: Duplex, lines: string[]): Promise<void> {
  const said = createInterface({ input: peer })[Symbol.asyncIterator]();
  const unanswered: number[] = [];
  const hear = async () => {
    const { value, done } = await said.next();
    assert.ok(done !== true, 'the driver has hung up');
    const { id, ...command } = JSON.parse(String(value)) as { id: number };
    return { id, command };
  };
  peer.write('{"QMP":{"version":{},"capabilities":[]}}\n');
  const { id: first } = await hear();
  peer.write(`{"return":{},"id":${first}}\n`);
  for (const line of lines) {
    const message = JSON.parse(line.slice(2)) as Record<string, unknown>;
    if (line.startsWith('>')) {
      const { id, command } = await hear();
      assert.deepEqual(command, message);
      unanswered.push(id);
      continue;
    }
    const answer = 'event' in message ? message : { ...message, id: unanswered.shift() };
    peer.write(`${JSON.stringify(answer)}\n`);
  }
}

/** A process in the place of keeper and emulator; the monitor ends with it. */
async function sleeper(peer: Duplex): Promise<JailProcesses> {
  const child = start('sleep', ['600'], { stdio: 'ignore' });
  child.on('exit', () => peer.destroy());
  peer.on('close', () => child.kill());
  const pid = child.pid ?? 0;
  const identity = { pid, startTicks: Number((await processStat(pid))?.[19]) };
  return { keeper: identity, vmm: identity };
}

async function vmOn({ qmp, peer }: Played, template?: TemplateUse): Promise<Vm> {
  return createQemuVm({
    ...{ id: 'vm', directory, qmp, template, jailPath: '/jail', clock: systemClock },
    processes: await sleeper(peer),
    log: silentLog,
    exec: async () => ({ exitCode: 0, stdout: '', stderr: '' }),
    ...{ disks: new Map(), freezing: undefined, tryClone: async () => {} },
    cleanUp: async () => {},
    applyLimits: async () => {},
  });
}

test('a disk is attached and detached as QEMU wants it', async () => {
  const played = await play('a disk comes and goes');
  const vm = await vmOn(played);
  const path = join(directory, 'disk');
  await writeFile(path, '');
  await vm.attachDisk({ serial: 'extra1', path, readOnly: true });
  await vm.detachDisk('extra1');
  await played.done;
  await vm.kill();
});

test('a stop that was asked for is no failure', async () => {
  const played = await play('a VM is stopped and goes on');
  const vm = await vmOn(played);
  await vm.pause();
  await vm.resume();
  await played.done;
  await vm.kill();
  assert.equal((await vm.exited).reason, 'killed');
});

test('a source is saved and ends, a clone takes its state and runs', async () => {
  const saved = await play('a VM is saved as a template');
  const source = await vmOn(saved, { role: 'source', directory });
  void saved.done.then(() => saved.peer.end());
  await source.saveTemplate();
  await source.exited;
  const cloned = await play('a clone takes the state and runs');
  await loadState((name, args) => cloned.qmp.command(name, args), systemClock);
  await cloned.qmp.command('cont');
  await cloned.done;
  cloned.qmp.close();
});

for (const title of [
  'KVM cannot run the guest on',
  'KVM could not run the guest on while no daemon was there',
]) {
  test(`${title}: the VM is ended and says so`, async () => {
    const record = { exitCode: null, signal: 9, requested: true, oomKills: 0 };
    await writeFile(join(directory, 'exit.json'), JSON.stringify(record));
    await writeFile(
      join(directory, 'vmm.log'),
      'KVM internal error. Suberror: 1\nemulation failure\n',
    );
    const played = await play(title);
    const vm = await vmOn(played);
    const exit = await vm.exited;
    await played.done;
    assert.equal(exit.reason, 'failed');
    assert.equal(
      exit.message,
      'KVM cannot run the guest on: KVM internal error. Suberror: 1 emulation failure',
    );
  });
}
