import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readdir, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { FakeClock } from '../../base/clock.fake.ts';
import { silentLog } from '../../base/log.ts';
import type { VmShape } from './shape.ts';
import { openTemplates } from './templates.ts';
import type { Template, TemplateLimits, Templates } from './templates.ts';

const MEMORY_BYTES = 1000;

let directory: string;
let clock: FakeClock;
let built: string[];
let build: (template: Template, signal: AbortSignal) => Promise<void>;
let host: string;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'templates-'));
  clock = new FakeClock();
  built = [];
  host = 'host';
  build = async (template) => {
    built.push(template.shape.owner);
    await writeFile(join(template.directory, 'memory'), Buffer.alloc(MEMORY_BYTES));
    await writeFile(join(template.directory, 'state'), 'state');
  };
});
afterEach(() => rm(directory, { recursive: true }));

function shape(owner: string, overrides: Partial<VmShape> = {}): VmShape {
  const files = { kernelPath: '/bin/sh', initrdPath: '', kernelArguments: [] };
  return { owner, cpuCount: 1, memoryMib: 128, ...files, ...overrides };
}

function open(limits: Partial<TemplateLimits> = {}): Promise<Templates> {
  return openTemplates({
    directory,
    host: async () => host,
    build: (template, signal) => build(template, signal),
    clock,
    log: silentLog,
    limits,
  });
}

test('one template is made for each owner and shape, and found again by the next daemon', async () => {
  const first = await open();
  assert.equal(await first.ready(shape('a')), undefined);
  const [one, same] = await Promise.all([first.find(shape('a')), first.find(shape('a'))]);
  assert.ok(one !== undefined && same?.id === one.id);
  const other = await first.find(shape('b'));
  const larger = await first.find(shape('a', { memoryMib: 256 }));
  assert.equal(new Set([one.id, other?.id, larger?.id]).size, 3);
  assert.deepEqual(built, ['a', 'b', 'a']);
  await first.close();
  const second = await open();
  assert.equal((await second.ready(shape('a')))?.id, one.id);
  assert.equal(built.length, 3);
  assert.deepEqual(
    second
      .list()
      .map(({ owner }) => owner)
      .sort(),
    ['a', 'a', 'b'],
  );
  await second.remove(one.id);
  await second.remove(one.id);
  assert.equal(await second.ready(shape('a')), undefined);
  await second.close();
});

test('pods of nobody share nothing', async () => {
  const templates = await open();
  assert.equal(await templates.find(shape('')), undefined);
  assert.deepEqual(built, []);
  await templates.close();
});

test('what another state of the host has left, or was half made, is removed', async () => {
  const first = await open();
  await first.find(shape('a'));
  await first.close();
  await mkdir(join(directory, 'half'));
  await writeFile(join(directory, 'half', 'memory'), 'x');
  host = 'after a reboot';
  const second = await open();
  assert.deepEqual(await readdir(directory), []);
  assert.equal(await second.ready(shape('a')), undefined);
  await second.close();
});

for (const [what, damage] of [
  ['has lost a part of its memory', (path: string) => truncate(join(path, 'memory'), 10)],
  ['has another state', (path: string) => writeFile(join(path, 'state'), 'stats')],
  ['is gone', (path: string) => rm(path, { recursive: true })],
] as const) {
  test(`a template that ${what} is not used, and made anew`, async () => {
    const templates = await open();
    const made = await templates.find(shape('a'));
    await damage(made?.directory ?? '');
    assert.equal(await templates.ready(shape('a')), undefined);
    assert.deepEqual(templates.list(), []);
    assert.ok(await templates.find(shape('a')));
    assert.equal(built.length, 2);
    await templates.close();
  });
}

test('one that cannot be made is not tried again for a while, and leaves nothing', async () => {
  const works = build;
  build = async (template) => {
    await works(template, AbortSignal.timeout(1000));
    throw new Error('no space left');
  };
  const templates = await open();
  assert.equal(await templates.find(shape('a')), undefined);
  assert.equal(await templates.find(shape('a')), undefined);
  assert.equal(built.length, 1);
  const [status] = templates.list();
  assert.deepEqual([status?.phase, status?.message], ['resting', 'no space left']);
  assert.deepEqual(await readdir(directory), []);
  build = works;
  await clock.advance(61_000);
  assert.ok(await templates.find(shape('a')));
  await templates.close();
});

test('the one that was used longest ago makes room', async () => {
  const templates = await open({ count: 2 });
  for (const owner of ['a', 'b']) {
    await templates.find(shape(owner));
    await clock.advance(1000);
  }
  await templates.ready(shape('a'));
  await clock.advance(1000);
  await templates.find(shape('c'));
  assert.deepEqual(
    templates
      .list()
      .map(({ owner }) => owner)
      .sort(),
    ['a', 'c'],
  );
  assert.equal((await readdir(directory)).length, 2);
  await templates.close();
});

test('condemned templates go; a daemon that ends does not wait for one that is being made', async () => {
  const templates = await open();
  const made = await templates.find(shape('a'));
  assert.ok(made);
  await templates.condemn(made, 'it does not answer');
  assert.deepEqual(await readdir(directory), []);
  build = (_template, signal) =>
    new Promise((_resolve, reject) =>
      signal.addEventListener('abort', () => reject(signal.reason)),
    );
  const waiting = templates.find(shape('b'));
  await templates.close();
  assert.equal(await waiting, undefined);
  assert.deepEqual(await readdir(directory), []);
});

test('of an owner that is forgotten nothing is left, not even what is being made', async () => {
  const templates = await open();
  await templates.find(shape('a'));
  await templates.find(shape('b'));
  const begun = Promise.withResolvers<void>();
  build = async (_, signal) => {
    begun.resolve();
    await new Promise((_resolve, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
    });
  };
  const finding = templates.find(shape('a', { memoryMib: 256 }));
  await begun.promise;
  await templates.forget('a');
  assert.equal(await finding, undefined);
  assert.deepEqual(
    templates.list().map(({ owner }) => owner),
    ['b'],
  );
  assert.equal((await readdir(directory)).length, 1);
  await templates.close();
});
