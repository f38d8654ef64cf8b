import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { open, readFile, readdir, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { run } from '../../base/exec.ts';
import { openTestStore, plainRegistries, publish } from './testing/upstream.ts';
import { build, rejectsWith, useStoreRig } from './testing/store-rig.ts';

const rig = useStoreRig();
const { pull } = rig;

test('pulls of the same image share one download and one disk', async () => {
  publish(rig.upstream, 'app', '1', await build('shared'));
  publish(rig.upstream, 'app', '2', await build('shared'));
  const pulled = await Promise.all(
    Array.from({ length: 12 }, (_, i) => pull(`app:${1 + (i % 2)}`)),
  );
  assert.equal(new Set(pulled.map(({ id }) => id)).size, 1);
  assert.equal(rig.upstream.count(/\/blobs\//), 2);
  assert.equal(rig.fixture.store.list().length, 1);
  assert.equal(rig.fixture.store.list()[0]?.references.length, 3);
});

test('an aborted pull ends at once, and leaves others alone', async () => {
  publish(rig.upstream, 'app', '1', await build('x'));
  const held: (() => void)[] = [];
  const arrived = Promise.withResolvers<void>();
  rig.upstream.intercept = (request, response) => {
    if (!/blobs/.test(request.url ?? '')) return false;
    held.push(() => {
      const { body } = rig.upstream.documents.get(request.url as string) as { body: Buffer };
      response.end(body);
    });
    arrived.resolve();
    return true;
  };
  const controller = new AbortController();
  const reason = new Error('pod deleted');
  const first = pull('app:1', controller.signal);
  await arrived.promise;
  const second = pull('app:1');
  controller.abort(reason);
  await assert.rejects(first, reason);
  rig.upstream.intercept = () => false;
  for (const release of held) release();
  assert.match((await second).id, /^sha256:/);
  await assert.rejects(pull('app:1', AbortSignal.abort(reason)), reason);
});

test('get(), list() and remove() know images by every name they have', async () => {
  const image = await build('x');
  publish(rig.upstream, 'app', '1', image);
  publish(rig.upstream, 'app', '2', image);
  publish(rig.upstream, 'other', 'latest', image);
  await pull('app:1');
  await pull('app:2');
  await pull('other');
  const { store } = rig.fixture;
  const hex = image.id.slice('sha256:'.length);
  const names = ['app:1', 'app:2', 'other', `app@${image.digest}`].map(
    (name) => `${rig.upstream.host}/${name}`,
  );
  for (const name of [...names, image.id, hex]) assert.equal(store.get(name)?.id, image.id, name);
  assert.equal(store.get('busybox'), undefined);
  assert.equal(store.get('not a reference'), undefined);

  await store.remove(names[0] as string);
  assert.equal(store.get(names[0] as string), undefined);
  assert.equal(store.get(names[3] as string)?.id, image.id);
  await store.remove(names[1] as string);
  assert.equal(store.get(names[3] as string), undefined, 'the last tag takes the digest along');
  assert.equal(store.list().length, 1);

  await store.acquire(image.id, 'pod-1');
  await assert.rejects(store.remove(names[2] as string), {
    reason: 'InUse',
    message: /in use by 1 containers: pod-1/,
  });
  await store.release(image.id, 'pod-1');
  await store.remove(names[2] as string);
  assert.deepEqual(store.list(), []);
  assert.deepEqual(await readdir(join(rig.fixture.directory, 'disks')), []);
  await assert.rejects(store.remove(image.id), { reason: 'NotFound' });
  await assert.rejects(store.acquire(image.id, 'pod-1'), { reason: 'NotFound' });
  await assert.rejects(store.acquire(image.id, '../../x'), RangeError);
});

test('an image goes with the only owner of pods that have run it', async () => {
  const [mine, ours, spare] = [await build('mine'), await build('ours'), await build('spare')];
  for (const [name, image] of Object.entries({ mine, ours, spare })) {
    publish(rig.upstream, name, '1', image);
    await pull(`${name}:1`);
  }
  const { store } = rig.fixture;
  await store.acquire(mine.id, 'pod-1', 'a');
  await store.acquire(ours.id, 'pod-1', 'a');
  await store.acquire(ours.id, 'pod-2', 'b');
  const names = () =>
    store.list().map(({ references }) => /\w+(?=@)/.exec(references[0] ?? '')?.[0]);
  await store.forget('a');
  assert.deepEqual(names(), ['mine', 'ours', 'spare'], 'a VM still has it');
  await store.acquire(mine.id, 'pod-1', 'a');
  for (const id of [mine.id, ours.id]) await store.release(id, 'pod-1');
  await pull('mine:1');
  await store.forget('a');
  assert.deepEqual(names(), ['ours', 'spare']);
  await store.release(ours.id, 'pod-2');
  await store.forget('b');
  assert.deepEqual(names(), ['spare']);
});

test('a tag that moves leaves the old image with its digest alone', async () => {
  const [old, next] = [await build('old'), await build('new')];
  publish(rig.upstream, 'app', 'latest', old);
  await pull('app');
  publish(rig.upstream, 'app', 'latest', next);
  assert.equal((await pull('app')).id, next.id);
  assert.equal(rig.fixture.store.get(`${rig.upstream.host}/app`)?.id, next.id);
  assert.deepEqual(rig.fixture.store.get(old.id)?.references, [
    `${rig.upstream.host}/app@${old.digest}`,
  ]);
});

test('layers are fetched once, kept while an image needs them, and removed after that', async () => {
  const base = [{ path: 'base', content: 'b'.repeat(5000) }];
  const one = await build('', { layers: [base, [{ path: 'one', content: '1' }]] });
  const two = await build('', { layers: [base, [{ path: 'two', content: '2' }]] });
  publish(rig.upstream, 'app', '1', one);
  publish(rig.upstream, 'app', '2', two);
  await pull('app:1');
  await pull('app:2');
  assert.equal(rig.upstream.count(/\/blobs\//), 5);
  const blobs = async () => (await readdir(join(rig.fixture.directory, 'blobs/sha256'))).length;
  await rig.fixture.store.remove(one.id);
  assert.equal(await blobs(), 3, 'two layers and the configuration of the other image');
  await rig.fixture.store.remove(two.id);
  assert.equal(await blobs(), 0);
});

test('images, names and leases survive a restart; what a crash left is cleaned up', async () => {
  const image = await build('x');
  publish(rig.upstream, 'app', '1', image);
  publish(rig.upstream, 'gone', '1', await build('gone'));
  await pull('app:1');
  const gone = await pull('gone:1');
  await rig.fixture.store.acquire(image.id, 'pod-1.main');
  const { directory } = rig.fixture;
  await rig.fixture.store.close();
  const disks = join(directory, 'disks');
  await rm(join(disks, `${gone.id.slice(7)}.erofs`));
  await writeFile(join(disks, `${'a'.repeat(64)}.erofs`), 'left behind');
  await writeFile(join(disks, `${image.id.slice(7)}.erofs.00.tmp`), 'left behind');
  await writeFile(join(directory, 'spool', 'spool-1'), 'left behind');

  rig.fixture = await openTestStore({
    registries: plainRegistries([rig.upstream.host]),
    directory,
  });
  assert.deepEqual(
    rig.fixture.store.list().map(({ id }) => id),
    [image.id],
  );
  assert.deepEqual(rig.fixture.store.leases(), [{ imageId: image.id, owner: 'pod-1.main' }]);
  assert.deepEqual(await readdir(disks), [`${image.id.slice(7)}.erofs`]);
  assert.deepEqual(await readdir(join(directory, 'spool')), []);
  await assert.rejects(rig.fixture.store.remove(image.id), { reason: 'InUse' });
  assert.equal((await pull('gone:1')).id, gone.id);
  assert.equal(rig.upstream.count(/gone\/blobs/), 2, 'its blobs were still there');
  await rig.fixture.store.release(image.id, 'pod-1.main');
  await rig.fixture.store.remove(image.id);
  assert.deepEqual(rig.fixture.store.leases(), []);
});

test('a full disk is said, and nothing is left of the image', async () => {
  const { directory } = rig.fixture;
  await rig.fixture.store.close();
  await run('mount', ['-t', 'tmpfs', '-o', 'size=80m', 'image-test', directory]);
  try {
    rig.fixture = await openTestStore({
      registries: plainRegistries([rig.upstream.host]),
      directory,
      limits: { freeBytesMin: 40 << 20 },
    });
    const large = Buffer.alloc(90 << 20, 'text');
    const layers = [[{ path: 'f', content: large }]];
    publish(rig.upstream, 'big', '1', await build('', { layers, compression: 'zstd' }));
    await rejectsWith(pull('big:1'), 'NoSpace', /no space left on the device for images$/);
    assert.deepEqual(await readdir(join(directory, 'disks')), []);
    const small = await build('small');
    publish(rig.upstream, 'small', '1', small);
    assert.equal((await pull('small:1')).id, small.id);
    const random = [[{ path: 'f', content: randomBytes(45 << 20) }]];
    const huge = await build('', { layers: random, compression: 'none' });
    publish(rig.upstream, 'huge', '1', huge);
    await rejectsWith(
      pull('huge:1'),
      'NoSpace',
      /bytes are free, [0-9]+ are needed and 41943040 are kept free$/,
    );
    await rig.fixture.store.close();
  } finally {
    await run('umount', [directory]);
  }
  rig.fixture = await openTestStore({
    registries: plainRegistries([rig.upstream.host]),
    directory,
  });
});

test('close() ends pulls that are under way', async () => {
  publish(rig.upstream, 'app', '1', await build('x'));
  const arrived = Promise.withResolvers<void>();
  rig.upstream.intercept = (request) => {
    if (!/blobs/.test(request.url ?? '')) return false;
    arrived.resolve();
    return true;
  };
  const pending = assert.rejects(pull('app:1'), /The image store is closed/);
  await arrived.promise;
  await rig.fixture.store.close();
  await pending;
});

for (const [what, damage] of [
  ['was written to', (path: string) => writeAt(path, 4096)],
  ['was cut', (path: string) => truncate(path, 100)],
  ['is gone', (path: string) => rm(path)],
] as const) {
  test(`an image whose disk ${what} is not used, and the next pull makes it anew`, async () => {
    publish(rig.upstream, 'app', '1', await build('whole'));
    const { id, references } = await pull('app:1');
    const { store } = rig.fixture;
    const path = await store.acquire(id, 'before');
    const whole = await readFile(path);
    await damage(path);
    await assert.rejects(store.acquire(id, 'pod'), { reason: 'NotFound', message: /is damaged/ });
    assert.equal(store.get(references[0] ?? ''), undefined);
    assert.ok(!store.leases().some(({ owner }) => owner === 'pod'));
    rig.upstream.requests = [];
    assert.equal((await pull('app:1')).id, id);
    assert.equal(rig.upstream.count(/\/blobs\//), 0, 'its layers were there');
    assert.deepEqual(await readFile(await store.acquire(id, 'pod')), whole);
  });
}

async function writeAt(path: string, position: number): Promise<void> {
  const file = await open(path, 'r+');
  await file.write(Buffer.alloc(16, 0xa5), 0, 16, position);
  await file.close();
}
