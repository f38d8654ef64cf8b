import assert from 'node:assert/strict';
import { once } from 'node:events';
import { PassThrough, duplexPair } from 'node:stream';
import { test } from 'node:test';
import { STREAM_CHANNEL } from '../../api/hyperd.ts';
import { readFrames, writeFrames } from '../../api/hyperstream.ts';
import type { StreamFrame } from '../../api/hyperstream.ts';
import { createDetachKeys } from './detach-keys.ts';
import { joinTerminal } from './terminal.ts';
import type { LocalStreams } from './terminal.ts';

test('createDetachKeys() finds the keys, also apart, and passes on what is not them', () => {
  const push = (...chunks: number[][]) => {
    const keys = createDetachKeys();
    const results = chunks.map((chunk) => keys.push(Buffer.from(chunk)));
    return [results.flatMap(({ bytes }) => [...bytes]), results.some((each) => each.isDetached)];
  };
  assert.deepEqual(push([65, 0x10, 0x11, 66]), [[65], true]);
  assert.deepEqual(push([65, 0x10], [0x11]), [[65], true]);
  assert.deepEqual(push([0x10, 66]), [[0x10, 66], false]);
  assert.deepEqual(push([0x10, 0x10, 0x11]), [[0x10], true]);
  assert.deepEqual(push([0x11]), [[0x11], false]);
});

/** A terminal of 30 rows and 100 columns that a test types on. */
function terminal() {
  const stdin = Object.assign(new PassThrough(), {
    isTTY: true,
    modes: [] as boolean[],
    setRawMode: (isRaw: boolean) => stdin.modes.push(isRaw),
  });
  const stdout = Object.assign(new PassThrough(), { isTTY: true, rows: 30, columns: 100 });
  const local = { stdin, stdout, stderr: new PassThrough() } as unknown as LocalStreams;
  return { local, stdin, stdout };
}

const WITH_KEYS = { stdin: true, tty: true, canDetach: true };

/** What the other side gets, one after the other. */
async function next(frames: AsyncGenerator<StreamFrame>): Promise<[channel: number, text: string]> {
  const { value } = (await frames.next()) as { value: StreamFrame };
  return [value.channel, value.payload.toString()];
}

test('joinTerminal() tells the size, sends keys and prints output until the process ends', async () => {
  const { local, stdin, stdout } = terminal();
  const [ours, theirs] = duplexPair();
  const ended = joinTerminal(ours, WITH_KEYS, local);
  const frames = readFrames(theirs);
  const { resize, stdin: input, stdout: output, exit } = STREAM_CHANNEL;
  assert.deepEqual(await next(frames), [resize, '{"width":100,"height":30}']);
  stdin.write('ls\r');
  assert.deepEqual(await next(frames), [input, 'ls\r']);
  Object.assign(stdout, { rows: 40 });
  stdout.emit('resize');
  assert.deepEqual(await next(frames), [resize, '{"width":100,"height":40}']);
  await writeFrames(theirs, output, Buffer.from('file'));
  assert.equal(String((await once(stdout, 'data'))[0]), 'file');
  await writeFrames(theirs, exit, Buffer.from('{"exitCode":3}'));
  assert.deepEqual(await ended, { how: 'exit', exit: { exitCode: 3 } });
  assert.deepEqual(stdin.modes, [true, false], 'the terminal is as it was');
  assert.equal(stdin.listenerCount('data'), 0);
});

test('joinTerminal() lets go at the keys, and says so when the line is cut', async () => {
  const detaching = terminal();
  const [ours] = duplexPair();
  const ended = joinTerminal(ours, WITH_KEYS, detaching.local);
  detaching.stdin.write(Buffer.from([0x10, 0x11]));
  assert.deepEqual(await ended, { how: 'detached' });
  assert.ok(ours.destroyed);
  const cut = terminal();
  const [near, far] = duplexPair();
  const lost = joinTerminal(near, WITH_KEYS, cut.local);
  far.end();
  assert.deepEqual(await lost, { how: 'cut' });
  assert.deepEqual(cut.stdin.modes, [true, false]);
});
