import assert from 'node:assert/strict';
import { duplexPair } from 'node:stream';
import { before, test } from 'node:test';
import { FakeClock } from '../../base/clock.fake.ts';
import { systemClock } from '../../base/clock.ts';
import { silentLog } from '../../base/log.ts';
import { seededRandom } from '../../base/random.ts';
import type { Random } from '../../base/random.ts';
import { connectAgent } from './client.ts';
import { buildTestGuest, containerSpec, makeTestHost, processSpec } from './testing/guest.ts';
import { TEST_SETUP, startTestGuest } from './testing/guest.ts';
import { FRAME, MAGIC, NONCE_BYTES, encodeData, encodeEnd, encodeFrame } from './wire.ts';
import { encodeRequest, encodeWindow } from './wire.ts';

// Goal: neither end of the control channel can be crashed, hung or led astray by the other.
// Method: well-formed sessions with random frames, sizes, offsets and flipped bytes. The guest is
// the real one with address and undefined-behaviour sanitizers; after each session a sound one
// must work. FUZZ_MS=… runs longer, SEED=… repeats.

const SEED = Number(process.env['SEED'] ?? 1);
const FUZZ_MS = Number(process.env['FUZZ_MS'] ?? 1_500);

let program = '';
before(async () => {
  program = await buildTestGuest();
});

const pick = <T>(random: Random, list: readonly T[]): T =>
  list[Math.floor(random.next() * list.length)] as T;
const integer = (random: Random, max: number) => Math.floor(random.next() * (max + 1));
const STREAMS = [0, 1, 2, 3, 4, 5, 6, 8, 9, 12, 16, 0xfffffff0, 0xffffffff];
const OFFSETS = [0, 1, 5, 64, 65_536, 131_072, 2 ** 31, 2 ** 40, 2 ** 53 - 1];

const VALUES: ((random: Random) => unknown)[] = [
  () => null,
  () => true,
  () => -1,
  () => 4,
  () => 2 ** 53 - 1,
  () => '',
  () => 'a',
  () => '../../x',
  () => '\ud83d\ude00"\\\u0001',
  (random) => 'x'.repeat(integer(random, 5_000)),
  () => [],
  () => ['a', 1, null],
  () => ({ a: { b: [{}] } }),
];

/** Arguments that make sense, of which some are then replaced. */
const REQUESTS: Record<string, unknown>[] = [
  { op: 'hello', versions: [2] },
  { op: 'ping' },
  { op: 'stats' },
  { op: 'setClock', epochMs: 1 },
  { op: 'setupPod', ...TEST_SETUP },
  { op: 'volumeBegin', volume: 'v', version: 2 },
  { op: 'volumeFile', volume: 'v', version: 2, path: 'a/b', mode: 420, offset: 0 },
  { op: 'volumeCommit', volume: 'v', version: 2 },
  { op: 'startContainer', ...containerSpec('a', ['true']), stream: 4, window: 65_536 },
  { op: 'startContainer', ...containerSpec('b', ['cat'], { stdin: true }), stream: 8, window: 9 },
  { op: 'exec', id: 'a', process: processSpec(['cat']), stream: 12, window: 100 },
  { op: 'exec', id: 'b', process: processSpec(['cat'], { tty: true }), stream: 16, window: 100 },
  { op: 'signal', stream: 4, signal: 0 },
  { op: 'resize', stream: 16, width: 1, height: 1 },
  { op: 'connect', stream: 20, window: 10, port: 1, timeoutMs: 100, host: '' },
  { op: 'setResources', id: 'a', resources: { cpuMillis: 1, memoryBytes: 1 << 20 } },
  { op: 'removeContainer', id: 'a' },
  { op: 'removeContainer', id: 'b' },
];

function requestFrames(random: Random): Buffer[] {
  const body: Record<string, unknown> = { ...pick(random, REQUESTS) };
  const field = pick(random, Object.keys(body));
  // A random signal or program would hit this machine, not a VM.
  if (random.next() < 0.4 && field !== 'process' && field !== 'signal') {
    body[field] = pick(random, VALUES)(random);
  }
  const attachment = Buffer.from(random.bytes(integer(random, 300)));
  return encodeRequest(integer(random, 5), body, attachment);
}

function hostFrames(random: Random): Buffer[] {
  const id = pick(random, STREAMS);
  const bytes = Buffer.from(random.bytes(1 + integer(random, 2_000)));
  const kinds: (() => Buffer[])[] = [
    () => requestFrames(random),
    () => requestFrames(random),
    () => requestFrames(random),
    () => [encodeData(id, pick(random, OFFSETS), bytes)],
    () => [encodeWindow(id, pick(random, OFFSETS), pick(random, OFFSETS))],
    () => [encodeEnd(id, pick(random, OFFSETS))],
    () => [encodeFrame(pick(random, Object.values(FRAME)), id, bytes, random.next() < 0.1)],
    () => [encodeFrame(FRAME.reset, id, Buffer.alloc(0))],
    () => [bytes],
  ];
  return pick(random, kinds.slice(0, random.next() < 0.7 ? 3 : kinds.length))();
}

function flipSome(random: Random, bytes: Buffer): Buffer {
  if (random.next() < 0.7) return bytes;
  const copy = Buffer.from(bytes);
  for (let i = integer(random, 3); i >= 0; i -= 1) {
    copy[integer(random, copy.length - 1)] = integer(random, 255);
  }
  return random.next() < 0.5 ? copy : copy.subarray(0, integer(random, copy.length));
}

test(`The guest outlives any host (seed ${SEED})`, async () => {
  const random = seededRandom(SEED);
  await using guest = await startTestGuest(program);
  let over = false;
  void guest.ended.then(() => (over = true));
  const endMs = systemClock.monotonicMs() + FUZZ_MS;
  let sessions = 0;
  for (; systemClock.monotonicMs() < endMs && !over; sessions += 1) {
    const wire = guest.line.attach();
    wire.on('error', () => {});
    wire.resume();
    const greeting = Buffer.concat([MAGIC, Buffer.from(random.bytes(NONCE_BYTES))]);
    const hello = encodeRequest(1, { op: 'hello', versions: [2] });
    const noise = Array.from({ length: integer(random, 30) }, () => hostFrames(random)).flat();
    const opening = random.next() < 0.9 ? [greeting, ...hello] : [greeting];
    wire.write(Buffer.concat([...opening, ...noise.map((frame) => flipSome(random, frame))]));
    await new Promise((resolve) => setImmediate(resolve));
    if (sessions % 10 !== 9) continue;
    const sound = makeTestHost({ resumeOffsets: () => 0, onOutput: async () => {} });
    const agent = await Promise.race([sound.connect(guest.line), guest.ended]);
    if ('code' in agent) break;
    const removed = agent.hello.containers.map(({ id }) => agent.removeContainer(id));
    const results = await Promise.allSettled(removed);
    agent.close();
    assert.equal(await agent.closed, undefined);
    assert.ok(
      results.every(({ status }) => status === 'fulfilled'),
      'a container stays',
    );
  }
  if (over) assert.fail(`the guest ended after ${sessions} sessions: ${(await guest.ended).text}`);
  assert.ok(sessions > 5, `${sessions} sessions`);
});

const ANSWERS: unknown[] = [
  { ok: {} },
  { ok: { current: 1 } },
  { ok: { stream: 4 } },
  { ok: { stream: 8 } },
  { error: { reason: 'Invalid', message: 'no', exitCode: 0 } },
  { error: { reason: 5 } },
  [],
  {},
];

const HELLO = {
  protocolVersion: 2,
  kernelVersion: '6',
  bootId: 'x',
  startedUptimeMs: 1,
  readyUptimeMs: 2,
  podReady: false,
};

function guestFrame(random: Random): Buffer {
  const id = pick(random, STREAMS);
  const bytes = Buffer.from(random.bytes(1 + integer(random, 2_000)));
  const json = (value: unknown) => Buffer.from(JSON.stringify(value));
  const words = { oomKilled: false, reason: '', message: '' };
  const exit = { exitCode: 1, signal: 0, finishedAtMs: 1, ...words };
  const kinds: (() => Buffer)[] = [
    () => encodeFrame(FRAME.response, integer(random, 8), json(pick(random, ANSWERS))),
    () => encodeData(id, pick(random, OFFSETS), bytes),
    () => encodeWindow(id, pick(random, OFFSETS), pick(random, OFFSETS)),
    () => encodeEnd(id, pick(random, OFFSETS)),
    () => encodeFrame(FRAME.exit, id, json(random.next() < 0.5 ? exit : pick(random, ANSWERS))),
    () => encodeFrame(FRAME.reset, id, bytes),
    () => encodeFrame(pick(random, Object.values(FRAME)), id, bytes),
    () => bytes,
  ];
  return pick(random, kinds)();
}

test(`The client outlives any guest (seed ${SEED})`, async () => {
  const random = seededRandom(SEED);
  const endMs = systemClock.monotonicMs() + FUZZ_MS;
  let sessions = 0;
  for (; systemClock.monotonicMs() < endMs; sessions += 1) await hostileGuest(random);
  assert.ok(sessions > 20, `${sessions} sessions`);
});

/** Everything the client promises must settle; nothing may throw past it. */
async function hostileGuest(random: Random): Promise<void> {
  const clock = new FakeClock();
  const [near, far] = duplexPair();
  far.on('error', () => {});
  far.once('data', (greeting: Buffer) => {
    far.resume();
    const ranges = { stdin: 0, stdout: [0, 9], stderr: [0, 0] };
    const container = { id: 'a', phase: 'running', stream: 4, ...ranges };
    const hello = { ok: { ...HELLO, containers: random.next() < 0.5 ? [container] : [] } };
    const opening = [
      greeting.subarray(0, MAGIC.length + NONCE_BYTES),
      encodeFrame(FRAME.response, 1, Buffer.from(JSON.stringify(hello))),
    ];
    const frames = Array.from({ length: integer(random, 20) }, () => guestFrame(random));
    far.write(Buffer.concat([...opening, ...frames.map((frame) => flipSome(random, frame))]));
    far.end();
  });
  const agent = await connectAgent(near, {
    clock,
    log: silentLog,
    resumeOffsets: () => 5,
    onOutput: async () => {},
    onContainerExit: async () => {},
  }).catch(() => undefined);
  if (!agent) return;
  const calls = [
    agent.setupPod({
      ...TEST_SETUP,
      volumes: [{ name: 'v', type: 'files', content: { version: 2, files: [] } }],
    }),
    agent.startContainer(containerSpec('a', ['true'])),
    agent.startContainer(containerSpec('b', ['true'])),
    agent.exec('a', processSpec(['true'])).then((process) => process.exited),
    agent.connectPort(80).then((connection) => connection.destroy()),
    agent.stats(),
    agent.removeContainer('a'),
  ];
  await agent.closed;
  await Promise.allSettled(calls);
  agent.close();
  assert.equal(clock.pendingCount, 0, 'a timer is left');
}
