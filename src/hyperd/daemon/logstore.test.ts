import assert from 'node:assert/strict';
import { mkdtemp, readdir, rm, stat, truncate } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { decodeLogRecords } from '../../api/hyperlog.ts';
import { seededRandom } from '../../base/random.ts';
import { openContainerLog } from './logstore.ts';
import type { ContainerLog, LogReadOptions } from './logstore.ts';

const root = await mkdtemp(join(tmpdir(), 'hyper-log-'));
after(() => rm(root, { recursive: true }));
let count = 0;
const freshDirectory = () => join(root, `log-${(count += 1)}`);

function options(overrides: Partial<LogReadOptions> = {}): LogReadOptions {
  const signal = overrides.signal ?? new AbortController().signal;
  const streams = new Set<1 | 2>([1, 2]);
  return { follow: false, tailLines: undefined, sinceMs: 0, streams, signal, ...overrides };
}

async function text(log: ContainerLog, overrides: Partial<LogReadOptions> = {}): Promise<string> {
  let out = '';
  for await (const record of decodeLogRecords(log.read(options(overrides)))) {
    out += Buffer.from(record.bytes).toString();
  }
  return out;
}

const write = (log: ContainerLog, value: string, stream: 1 | 2 = 1, timeMs = 1000) =>
  log.append(stream, log.offset(stream), Buffer.from(value), timeMs);

test('read() returns what was appended, stream by stream', async () => {
  const log = await openContainerLog(freshDirectory());
  await write(log, 'one\ntw');
  await write(log, 'err\n', 2);
  await write(log, 'o\n');
  assert.equal(await text(log, { streams: new Set([1]) }), 'one\ntwo\n');
  assert.equal(await text(log, { streams: new Set([2]) }), 'err\n');
  await log.close();
});

test('append() skips bytes that it has and refuses a gap', async () => {
  const log = await openContainerLog(freshDirectory());
  await log.append(1, 0, Buffer.from('hello'), 1);
  await log.append(1, 2, Buffer.from('llo world'), 1);
  assert.equal(await text(log), 'hello world');
  await assert.rejects(log.append(1, 99, Buffer.from('x'), 1), /leaves a gap/);
  await log.close();
});

test('tailLines counts lines, also over rotated files and partial ones', async () => {
  const log = await openContainerLog(freshDirectory(), { fileBytes: 200, fileCount: 50 });
  for (let index = 0; index < 100; index += 1) await write(log, `line ${index}\n`);
  await write(log, 'unfinished');
  assert.equal(await text(log, { tailLines: 3 }), 'line 98\nline 99\nunfinished');
  assert.equal((await text(log, { tailLines: 60 })).split('\n').length, 60);
  assert.equal(await text(log, { tailLines: 0 }), '');
  assert.equal((await text(log, { tailLines: 500 })).split('\n').length, 101);
  await log.close();
});

test('sinceMs leaves out what is older', async () => {
  const log = await openContainerLog(freshDirectory());
  await write(log, 'old\n', 1, 1000);
  await write(log, 'new\n', 1, 2000);
  assert.equal(await text(log, { sinceMs: 1500 }), 'new\n');
  await log.close();
});

test('follow sees later records, over rotations, until finish()', async () => {
  const log = await openContainerLog(freshDirectory(), { fileBytes: 300, fileCount: 100 });
  const reading = text(log, { follow: true });
  let expected = '';
  for (let index = 0; index < 200; index += 1) {
    expected += `line ${index}\n`;
    await write(log, `line ${index}\n`);
  }
  log.finish();
  assert.equal(await reading, expected);
  await log.close();
});

test('rotation keeps no more than fileCount files', async () => {
  const directory = freshDirectory();
  const log = await openContainerLog(directory, { fileBytes: 100, fileCount: 3 });
  for (let index = 0; index < 100; index += 1) await write(log, `line ${index}\n`);
  const kept = await text(log);
  assert.match(kept, /line 99\n$/);
  assert.doesNotMatch(kept, /line 50\n/);
  assert.equal(log.offset(1), 10 * 'line 0\n'.length + 90 * 'line 10\n'.length);
  assert.equal((await readdir(directory)).length, 3);
  await log.close();
});

test('a crash at any byte loses nothing that the guest sends again', async () => {
  const random = seededRandom(7);
  const full = Array.from({ length: 60 }, (_, index) => `line ${index}\n`).join('');
  for (let round = 0; round < 40; round += 1) {
    const directory = freshDirectory();
    const limits = { fileBytes: 400, fileCount: 100 };
    const log = await openContainerLog(directory, limits);
    await log.append(1, 0, Buffer.from(full), 1);
    await log.append(2, 0, Buffer.from('e\n'), 1);
    await log.close();
    const path = join(directory, `${(await readdir(directory)).length - 1}.log`);
    const { size } = await stat(path);
    await truncate(path, Math.floor(random.next() * size));
    const again = await openContainerLog(directory, limits);
    for (const [stream, bytes] of [
      [1, Buffer.from(full)],
      [2, Buffer.from('e\n')],
    ] as const) {
      const offset = again.offset(stream);
      await again.append(stream, offset, bytes.subarray(offset), 1);
    }
    assert.equal(await text(again, { streams: new Set([1]) }), full, `round ${round}`);
    assert.equal(await text(again, { streams: new Set([2]) }), 'e\n', `round ${round}`);
    await again.close();
  }
});
