import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { systemClock } from '../../base/clock.ts';
import { systemRandom } from '../../base/random.ts';
import { openKernelStore } from './disk-store.ts';
import { KernelError } from './store.ts';
import type { KernelContent, KernelErrorReason, KernelStore } from './store.ts';

const NONE = Buffer.alloc(0);

interface Place extends AsyncDisposable {
  directory: string;
  pods: string;
  open(): Promise<KernelStore>;
  setHyperstart(text: string): Promise<void>;
}

async function place(): Promise<Place> {
  const root = await mkdtemp(join(tmpdir(), 'hypernetes-kernels-'));
  const path = (name: string) => join(root, name);
  for (const name of ['vmlinux', 'initrd', 'hyperstart']) await writeFile(path(name), name);
  await mkdir(path('pods'));
  return {
    directory: path('kernels'),
    pods: path('pods'),
    setHyperstart: (text) => writeFile(path('hyperstart'), text),
    open: () =>
      openKernelStore({
        directory: path('kernels'),
        builtIn: {
          name: 'debian',
          release: '6.1-debian',
          origin: 'set-up',
          kernelPath: path('vmlinux'),
          initrdPath: path('initrd'),
        },
        hyperstartPath: path('hyperstart'),
        clock: systemClock,
        random: systemRandom,
      }),
    [Symbol.asyncDispose]: () => rm(root, { recursive: true }),
  };
}

const content = (text: string, rest: Partial<KernelContent> = {}): KernelContent => ({
  vmlinux: Buffer.from(text),
  modules: NONE,
  release: `6.1-${text}`,
  origin: 'a test',
  ...rest,
});

const refusal = (reason: KernelErrorReason, message: RegExp) => (error: unknown) => {
  assert.ok(error instanceof KernelError, String(error));
  assert.equal(error.reason, reason);
  assert.match(error.message, message);
  return true;
};

const names = async (store: KernelStore) => (await store.list()).map((kernel) => kernel.names);

async function podOf(place: Place, name: string): Promise<string> {
  const directory = join(place.pods, name);
  await mkdir(directory);
  return directory;
}

test('the kernel of set-up is always there, and the default of who does not choose', async () => {
  await using here = await place();
  const store = await here.open();
  assert.deepEqual(await names(store), [['debian']]);
  const { isDefault, isBuiltIn, release } = await store.default();
  assert.deepEqual([isDefault, isBuiltIn, release], [true, true, '6.1-debian']);
  const files = await store.acquire(undefined, here.pods);
  assert.equal(await readFile(files.kernelPath, 'utf8'), 'vmlinux');
  assert.deepEqual(await readdir(here.pods), [], 'it is used where it lies');
  await assert.rejects(store.remove('debian'), refusal('BuiltIn', /the one of set-up/));
  await assert.rejects(store.import('debian', content('a')), refusal('BuiltIn', /of set-up/));
});

test('import(), use() and remove() are seen by every store of the directory', async () => {
  await using here = await place();
  const [store, other] = [await here.open(), await here.open()];
  const imported = await store.import('mine', content('a', { buildKey: 'k', config: 'C=y' }));
  assert.match(imported.id, /^[0-9a-f]{64}$/);
  assert.equal(imported.buildKey, 'k');
  assert.deepEqual(await other.get('mine'), imported);
  assert.deepEqual(await other.get(imported.id), imported);
  await store.use('mine');
  assert.equal((await other.default()).release, '6.1-a');
  await assert.rejects(other.remove('mine'), refusal('InUse', /it is the default/));
  await other.use('debian');
  await other.remove('mine');
  assert.deepEqual(await names(store), [['debian']]);
  assert.deepEqual(await readdir(here.directory), ['names']);
  const unknown = refusal('NotFound', /^Cannot find kernel "mine" on this node$/);
  await assert.rejects(store.get('mine'), unknown);
});

test('the same content has one place and may have several names', async () => {
  await using here = await place();
  const store = await here.open();
  const { id } = await store.import('one', content('a'));
  assert.equal((await store.import('two', content('a'))).id, id);
  assert.equal((await store.import('two', content('a'))).id, id, 'again');
  assert.deepEqual(await names(store), [['debian'], ['one', 'two']]);
  await assert.rejects(store.import('two', content('b')), refusal('Exists', /there is one/));
  await store.remove('one');
  assert.deepEqual(await names(store), [['debian'], ['two']]);
});

test('import() refuses names that are none', async () => {
  await using here = await place();
  const store = await here.open();
  for (const name of ['', '../x', 'A', '-a', 'a-', 'a'.repeat(41), 'a/b', '.']) {
    await assert.rejects(store.import(name, content('a')), refusal('Invalid', /1 to 40 of/));
  }
});

test('what pods run stays: in the store, and in their hands', async () => {
  await using here = await place();
  const store = await here.open();
  await store.import('mine', content('a'));
  const pod = await podOf(here, 'pod');
  const files = await store.acquire('mine', pod);
  assert.deepEqual(files.kernelArguments, ['scsi_mod.scan=manual']);
  assert.equal((await store.get('mine')).podCount, 1);
  await assert.rejects(store.remove('mine'), refusal('InUse', /1 pods of this node run it/));
  await store.import('mine', content('b'), { replace: true });
  assert.deepEqual(await names(store), [['debian'], ['mine'], []]);
  assert.equal(await readFile(files.kernelPath, 'utf8'), 'a');
  await store.acquire('mine', pod);
  assert.equal(await readFile(files.kernelPath, 'utf8'), 'b', 'a pod that begins anew');
  const old = (await store.list()).find((kernel) => kernel.names.length === 0);
  await store.remove(old?.id ?? '');
  await rm(pod, { recursive: true });
  await store.remove('mine');
  assert.deepEqual(await names(store), [['debian']]);
});

test('a kernel that is removed while pods take it is gone for good or not at all', async () => {
  await using here = await place();
  const store = await here.open();
  for (let round = 0; round < 60; round += 1) {
    const { id } = await store.import('mine', content(`a${round}`));
    const pod = await podOf(here, `pod-${round}`);
    const [taken, removal] = await Promise.allSettled([
      store.acquire('mine', pod),
      store.remove('mine'),
    ]);
    if (taken.status === 'fulfilled') {
      assert.equal(await readFile(taken.value.kernelPath, 'utf8'), `a${round}`);
      assert.equal((await readFile(taken.value.initrdPath)).length > 0, true);
    } else {
      assert.ok(taken.reason instanceof KernelError, String(taken.reason));
    }
    if (removal.status === 'rejected') assert.ok(removal.reason instanceof KernelError);
    const left = (await store.list()).find((kernel) => kernel.id === id);
    assert.equal(left === undefined, removal.status === 'fulfilled');
    await rm(pod, { recursive: true });
    if (left) await store.remove(left.names[0] ?? id);
  }
});

test('a stored kernel gets the hyperstart of today, and its own modules', async () => {
  await using here = await place();
  const first = await here.open();
  const modules = Buffer.from('(the modules)');
  const { initrdPath } = await first.import('mine', content('a', { modules }));
  const before = await readFile(initrdPath, 'latin1');
  assert.ok(before.includes('hyperstart') && before.endsWith('(the modules)'));
  const pod = await podOf(here, 'pod');
  const files = await first.acquire('mine', pod);
  assert.deepEqual(files.kernelArguments, []);
  await here.setHyperstart('hyperstart, a newer one');
  await here.open();
  const after = await readFile(initrdPath, 'latin1');
  assert.ok(after.includes('a newer one') && after.endsWith('(the modules)'));
  assert.equal(await readFile(files.initrdPath, 'latin1'), before, 'of a pod that has begun');
});

test('what others left behind is removed, unless they are still at it', async () => {
  await using here = await place();
  const store = await here.open();
  await store.import('mine', content('a'));
  const dead = join(here.directory, '.new-4194303-abc');
  const alive = join(here.directory, `.new-${process.pid}-abc`);
  for (const directory of [dead, alive]) await mkdir(directory);
  await writeFile(join(dead, 'vmlinux'), 'half');
  await writeFile(join(here.directory, 'names', 'dangling'), 'f'.repeat(64));
  await writeFile(join(here.directory, 'default'), 'gone');
  const again = await here.open();
  assert.deepEqual(await names(again), [['debian'], ['mine']]);
  assert.equal((await again.default()).isBuiltIn, true, 'a default that is gone is none');
  const left = (await readdir(here.directory)).filter((entry) => entry.startsWith('.'));
  assert.deepEqual(left, [`.new-${process.pid}-abc`]);
});

test('a kernel whose record is damaged is not used, and may be imported again', async () => {
  await using here = await place();
  const store = await here.open();
  const { id } = await store.import('mine', content('a'));
  await store.use('mine');
  await writeFile(join(here.directory, id, 'kernel.json'), '{"version":');
  assert.deepEqual(await names(await here.open()), [['debian']]);
  assert.equal((await store.default()).isBuiltIn, true);
  await store.import('mine', content('a'));
  assert.equal((await store.default()).release, '6.1-a');
});

test('the number of kernels has a limit', async () => {
  await using here = await place();
  const store = await here.open();
  for (let i = 0; i < 32; i += 1) await store.import(`k${i}`, content(`a${i}`));
  await assert.rejects(store.import('more', content('b')), refusal('TooMany', /32 are here/));
  await store.remove('k0');
  await store.import('more', content('b'));
});
