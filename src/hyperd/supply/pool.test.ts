import assert from 'node:assert/strict';
import { setImmediate } from 'node:timers/promises';
import { test } from 'node:test';
import { FakeClock } from '../../base/clock.fake.ts';
import { silentLog } from '../../base/log.ts';
import type { Vm, VmExit } from '../vmm/hypervisor.ts';
import { createPool } from './pool.ts';
import type { Pool, PoolPolicy } from './pool.ts';
import type { VmRequest, WarmVm } from './supply.ts';

interface Rig {
  pool: Pool;
  clock: FakeClock;
  made: string[];
  /** Serials of the images that they were made ready for. */
  images: (string | undefined)[];
  ended: string[];
  /** Ends a VM as something outside would. */
  kill(id: string): Promise<void>;
  fail: Error | undefined;
  isShortOfMemory: boolean;
}

const ADAPTIVE: PoolPolicy = { kind: 'adaptive', count: 4, memoryMib: 1000 };

function createRig(policy: Partial<PoolPolicy> = {}): Rig {
  const clock = new FakeClock();
  const exits = new Map<string, (exit: VmExit) => void>();
  const rig: Rig = {
    clock,
    made: [],
    images: [],
    ended: [],
    fail: undefined,
    isShortOfMemory: false,
    async kill(id) {
      exits.get(id)?.({ reason: 'killed', exitCode: 0, signal: 'SIGKILL', message: '' });
      await settle();
    },
    pool: createPool({
      policy: { ...ADAPTIVE, ...policy },
      clock,
      log: silentLog,
      memoryMibOf: ({ shape }) => shape.memoryMib,
      isShortOfMemory: () => rig.isShortOfMemory,
      async make({ shape }, image): Promise<WarmVm> {
        rig.images.push(image?.serial);
        await setImmediate();
        if (rig.fail) throw rig.fail;
        const id = `${shape.owner}${rig.made.length}`;
        rig.made.push(id);
        const exited = new Promise<VmExit>((resolve) => exits.set(id, resolve));
        return { id, vm: { id, exited } as Vm, uid: 1, port: null };
      },
      async end({ id }) {
        rig.ended.push(id);
      },
    }),
  };
  return rig;
}

function request(owner: string, memoryMib = 100): VmRequest {
  const files = { kernelPath: '/k', initrdPath: '/i', kernelArguments: [] };
  return { shape: { owner, cpuCount: 1, memoryMib, ...files }, network: null, scratchMib: 64 };
}

/** Lets everything happen that needs no time. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 50; turn += 1) await setImmediate();
}

test('the first pod of a kind finds none; one waits for the next, and no other owner gets it', async () => {
  const { pool, made } = createRig();
  assert.equal(pool.take(request('a')), undefined);
  await settle();
  assert.equal(pool.take(request('b')), undefined);
  assert.equal(pool.take(request('a', 200)), undefined);
  assert.equal(pool.take({ ...request('a'), scratchMib: 65 }), undefined);
  assert.equal(pool.take(request('a'))?.id, 'a0');
  await settle();
  assert.ok(made.length > 1);
  const [kind] = pool.status();
  assert.deepEqual([kind?.owner, kind?.hits, kind?.misses], ['a', 1, 1]);
  await pool.close();
});

test('pods of nobody, and a pool that is off, have none', async () => {
  const { pool, made } = createRig();
  assert.equal(pool.take(request('')), undefined);
  const off = createRig({ kind: 'off' });
  off.pool.take(request('a'));
  await settle();
  assert.deepEqual([made, off.made], [[], []]);
  await Promise.all([pool.close(), off.pool.close()]);
});

test('as many wait as came lately, up to a number, and fewer again when it is quiet', async () => {
  const rig = createRig();
  const { pool, clock } = rig;
  for (let i = 0; i < 10; i += 1) pool.take(request('a'));
  await settle();
  assert.equal(pool.status()[0]?.waiting, 4);
  await clock.advance(31_000);
  await settle();
  assert.equal(pool.status()[0]?.waiting, 1);
  await clock.advance(11 * 60_000);
  await settle();
  assert.equal(pool.status()[0]?.waiting, 0);
  assert.equal(rig.ended.length, rig.made.length);
  await pool.close();
});

test('a fixed number waits from the first pod on', async () => {
  const { pool } = createRig({ kind: 'fixed', count: 3 });
  pool.take(request('a'));
  await settle();
  assert.equal(pool.status()[0]?.waiting, 3);
  await pool.close();
});

test('all kinds together stay within the memory that they may take', async () => {
  const { pool } = createRig({ memoryMib: 250 });
  for (const owner of ['a', 'b', 'c']) for (let i = 0; i < 4; i += 1) pool.take(request(owner));
  await settle();
  const waiting = pool.status().reduce((sum, kind) => sum + kind.waiting, 0);
  assert.equal(waiting, 2);
  await pool.close();
});

test('nothing waits where the host is short of memory', async () => {
  const rig = createRig();
  rig.pool.take(request('a'));
  await settle();
  rig.isShortOfMemory = true;
  await rig.clock.advance(31_000);
  await settle();
  assert.deepEqual(rig.ended, ['a0']);
  await rig.pool.close();
});

test('one that dies while it waits is replaced, and never given away', async () => {
  const rig = createRig();
  rig.pool.take(request('a'));
  await settle();
  await rig.kill('a0');
  assert.deepEqual(rig.ended, ['a0']);
  assert.equal(rig.pool.take(request('a'))?.id, 'a1');
  await rig.kill('a1');
  assert.deepEqual(rig.ended, ['a0'], 'one that was taken is another’s');
  await rig.pool.close();
});

test('they are made ready for what pods of their kind started last', async () => {
  const { pool, images } = createRig();
  pool.take(request('a'));
  pool.noteStart(request('a'), { serial: 'i1', path: '/1', program: 'sh', mountPaths: [] });
  pool.noteStart(request('b'), { serial: 'i2', path: '/2', program: 'sh', mountPaths: [] });
  await settle();
  pool.take(request('a'));
  await settle();
  assert.equal(images.at(-1), 'i1');
  await pool.close();
});

test('failures are tried again, more and more seldom', async () => {
  const rig = createRig();
  rig.fail = new Error('no template');
  rig.pool.take(request('a'));
  await settle();
  rig.fail = undefined;
  await rig.clock.advance(1_000);
  rig.pool.take(request('a'));
  await settle();
  assert.deepEqual(rig.made, []);
  await rig.clock.advance(1_500);
  await settle();
  assert.ok(rig.made.length > 0);
  await rig.pool.close();
});

test('close() ends all that wait, and what is just being made', async () => {
  const rig = createRig();
  rig.pool.take(request('a'));
  await rig.pool.close();
  await settle();
  assert.deepEqual(rig.ended, rig.made);
});

test('while a pod starts none is made for the next, unless none waits', async () => {
  const { pool, made, clock } = createRig();
  for (let i = 0; i < 3; i += 1) pool.take(request('a'));
  await settle();
  assert.equal(made.length, 3);
  pool.take(request('a'));
  await settle();
  assert.equal(made.length, 3, 'two wait: the start has the machine');
  await clock.advance(1_000);
  await settle();
  assert.ok(made.length > 3, 'the start is over');
  while (pool.status()[0]?.waiting) pool.take(request('a'));
  const before = made.length;
  await settle();
  assert.ok(made.length > before, 'none waits');
  await pool.close();
});

test('an owner has no more waiting than its limit, whatever the pool could hold', async () => {
  const rig = createRig();
  const { pool } = rig;
  const countOf = (owner: string) =>
    pool.waiting().filter(({ request: { shape } }) => shape.owner === owner).length;
  for (const owner of ['a', 'a', 'a', 'b', 'b']) pool.take(request(owner));
  await settle();
  assert.deepEqual([countOf('a'), countOf('b')], [3, 2]);
  pool.limit('a', 199);
  await settle();
  assert.deepEqual([countOf('a'), countOf('b')], [1, 2]);
  assert.equal(rig.ended.length, 2);
  pool.take(request('a'));
  await settle();
  assert.equal(countOf('a'), 1, 'one is made for the one that was taken, and no more');
  pool.limit('a', 0);
  pool.take(request('a'));
  await settle();
  assert.equal(countOf('a'), 0);
  pool.limit('a', undefined);
  await rig.clock.advance(1_000);
  await settle();
  assert.ok(countOf('a') > 1);
  await pool.close();
});

test('of an owner that is forgotten nothing waits and nothing is being made', async () => {
  const rig = createRig();
  const { pool } = rig;
  pool.take(request('a'));
  pool.take(request('b'));
  await settle();
  pool.take(request('a'));
  await pool.forget('a');
  await settle();
  assert.deepEqual(
    pool.status().map(({ owner }) => owner),
    ['b'],
  );
  const ofA = (ids: string[]) => ids.filter((id) => id.startsWith('a')).sort();
  assert.deepEqual(ofA(rig.ended), ofA(rig.made).slice(1), 'all but the one that was taken');
  await pool.forget('nobody');
  await pool.close();
});
