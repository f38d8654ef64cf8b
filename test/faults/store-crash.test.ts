import assert from 'node:assert/strict';
import type { ChildProcess, StdioOptions } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { systemClock } from '../../src/base/clock.ts';
import { start } from '../../src/base/exec.ts';
import { seededRandom } from '../../src/base/random.ts';
import type { Random } from '../../src/base/random.ts';
import { HistoryChecker } from './store-history.ts';
import type { Acknowledgement, Recovery } from './store-history.ts';

const KILL_COUNT = 200;
const CLIENT_COUNT = 12;
const CHILD = fileURLToPath(new URL('./store-crash.child.ts', import.meta.url));

/** The seed of a failed run, to run it again: `STORE_CRASH_SEED=… node --test …`. */
const seed = Number(process.env.STORE_CRASH_SEED ?? Math.floor(Math.random() * 2 ** 31));

interface Report {
  ack?: Acknowledgement;
  recovery?: Recovery;
}

/** How a round ends: some while opening, most under load, a few in good order. */
function planOf(
  number: number,
  random: Random,
): { end: 'stop' | 'SIGKILL'; acks: number; delayMs: number } {
  // The first process ends in good order, and leaves its compiled modules to the others.
  const choice = number === 0 ? 0.1 : random.next();
  const delayMs = random.next() * 8;
  if (choice < 0.1) return { end: 'SIGKILL', acks: 0, delayMs: random.next() * 80 };
  if (choice < 0.15) return { end: 'stop', acks: 50, delayMs };
  return { end: 'SIGKILL', acks: 1 + Math.floor(random.next() ** 2 * 600), delayMs };
}

/** Runs one process to its end, and hands what it reports to the checker. */
async function round(
  number: number,
  child: ChildProcess,
  random: Random,
  checker: HistoryChecker,
): Promise<void> {
  const { end, acks, delayMs } = planOf(number, random);
  const exited = once(child, 'exit');
  const finish = async () => {
    await systemClock.sleep(delayMs);
    if (end === 'stop') child.stdin?.write('stop\n');
    else child.kill('SIGKILL');
  };
  let ackCount = 0;
  let finishing = acks === 0 ? finish() : undefined;
  child.stdin?.on('error', () => {});
  child.stdin?.write('go\n');
  const reports: string[] = [];
  // A line that the kill cut short is not a report.
  let rest = '';
  for await (const chunk of (child.stdout as NodeJS.ReadableStream).setEncoding('utf8')) {
    const lines = (rest + chunk).split('\n');
    rest = lines.pop() as string;
    reports.push(...lines);
    ackCount += lines.length;
    if (ackCount >= acks) finishing ??= finish();
  }
  await finishing;
  const [code, signal] = await exited;
  for (const line of reports) {
    const { ack, recovery } = JSON.parse(line) as Report;
    if (recovery) checker.recover(recovery);
    if (ack) checker.acknowledge(ack);
  }
  const expected = end === 'stop' ? code === 0 : signal === 'SIGKILL';
  assert.ok(expected, `the process ended by itself: code ${code}, signal ${signal}`);
}

describe('a store that is killed', () => {
  it(`${KILL_COUNT} times loses no acknowledged write and invents none`, async (context) => {
    const folder = await mkdtemp(join(tmpdir(), 'hypernetes-crash-'));
    const path = join(folder, 'store.db');
    const random = seededRandom(seed);
    const checker = new HistoryChecker(CLIENT_COUNT);
    // Each process is started while the one before it still runs, and waits for its turn.
    const spawn = (number: number) => {
      const numbers = [number, seed + number, CLIENT_COUNT].map(String);
      const stdio: StdioOptions = ['pipe', 'pipe', 'inherit'];
      const env = { ...process.env, NODE_COMPILE_CACHE: join(folder, 'cache') };
      return start(process.execPath, [CHILD, path, ...numbers], { stdio, env });
    };
    let next = spawn(0);
    try {
      for (let number = 0; number < KILL_COUNT; number += 1) {
        const child = next;
        next = spawn(number + 1);
        await round(number, child, random, checker).catch((error) => {
          child.kill('SIGKILL');
          throw new Error(`Round ${number} with STORE_CRASH_SEED=${seed}`, { cause: error });
        });
      }
      const { size } = await stat(path);
      const { acknowledgedCount, unacknowledgedCount } = checker;
      context.diagnostic(`seed ${seed}: ${acknowledgedCount} writes acknowledged,`);
      context.diagnostic(`${unacknowledgedCount} durable before they could be, file ${size} bytes`);
      assert.ok(acknowledgedCount > 10 * KILL_COUNT, 'there was load');
      assert.ok(unacknowledgedCount > 0, 'kills hit writes under way');
      assert.ok(size < 64 << 20, 'compaction kept the file small');
    } finally {
      next.kill('SIGKILL');
      await rm(folder, { recursive: true });
    }
  });
});
