import assert from 'node:assert/strict';
import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, test } from 'node:test';
import type { ExecResult } from '../../../base/exec.ts';
import { silentLog } from '../../../base/log.ts';
import { createFreezing } from './freezing.ts';
import type { Freezing } from './freezing.ts';

let directory: string;
let answer: ExecResult;
let asked: string[] = [];
let freezing: Freezing;

before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'hypernetes-freezing-'));
});

after(() => rm(directory, { recursive: true }));

beforeEach(() => {
  answer = { exitCode: 0, stdout: '', stderr: '' };
  const exec = async (path: string, args: readonly string[]) => {
    asked = [path, ...args];
    return answer;
  };
  freezing = createFreezing({ jailPath: '/jail', exec, log: silentLog });
});

const heir = () => ({ role: 'heir', directory }) as const;
const freeze = () =>
  freezing.freeze({ process: { pid: 7, startTicks: 9 }, directory: '/vm' }, heir());

test('an emulated heir is frozen, and what it was started from goes', async () => {
  assert.equal(await freezing.isUsed(undefined, 'tcg'), false);
  assert.equal(await freezing.isUsed({ role: 'source', directory }, 'tcg'), false);
  assert.equal(await freezing.isUsed(heir(), 'kvm'), false);
  assert.equal(await freezing.isUsed(heir(), 'tcg'), true);
  await writeFile(join(directory, 'state'), '');
  await freeze();
  assert.deepEqual(asked, [
    ...['/jail', 'freeze', '--pid', '7', '--start-ticks', '9'],
    ...['--inventory', '/vm/inventory', '--image', join(directory, 'monitor')],
  ]);
  await assert.rejects(stat(join(directory, 'state')));
});

test('a clone is thawed from what was frozen, whatever has become of freezing since', async () => {
  const clone = { role: 'clone', directory } as const;
  assert.equal(await freezing.isUsed(clone, 'tcg'), false);
  await writeFile(join(directory, 'monitor'), '');
  freezing.giveUp('it does not thaw');
  assert.equal(await freezing.isUsed(clone, 'tcg'), true);
  assert.equal(await freezing.isUsed(heir(), 'tcg'), false);
});

test('a failure that may pass is no reason not to try again, one that cannot pass is', async () => {
  await writeFile(join(directory, 'state'), '');
  const failed = { reason: 'Failed', message: /Cannot freeze the VM: no room/ };
  answer = { exitCode: 125, stdout: '', stderr: 'no room\n' };
  await assert.rejects(freeze(), failed);
  assert.equal(await freezing.isUsed(heir(), 'tcg'), true);
  answer.exitCode = 124;
  await assert.rejects(freeze(), failed);
  assert.equal(await freezing.isUsed(heir(), 'tcg'), false);
  await stat(join(directory, 'state'));
});
