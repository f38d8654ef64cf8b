import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { seededRandom } from '../../base/random.ts';
import type { Agent } from './agent.ts';
import { TEST_SETUP, buildTestGuest, containerSpec, makeTestHost } from './testing/guest.ts';
import { startTestGuest } from './testing/guest.ts';

// Goal: whenever the host vanishes, at any byte in either direction and with any of its output not
// yet safe, nothing that containers wrote is lost or told twice, and every exit is told.
// Method: containers print known text; the line is cut at random bytes, over and over; what a
// host had not made safe when it was cut is forgotten. The seed is printed; SEED=… repeats a run.

const SEED = Number(process.env['SEED'] ?? Date.now() % 1_000_000);
const ROUNDS = Number(process.env['ROUNDS'] ?? 3);
const CUTS_MAX = 60;
const CUT_BYTES_MAX = 40_000;
/** About as long as the greeting and the first requests. */
const EARLY_CUT_BYTES_MAX = 100;

let program = '';
before(async () => {
  program = await buildTestGuest();
});

const LINES = 9_000;
const numbers = (from: number) => Array.from({ length: LINES }, (_, i) => `${from + i}\n`).join('');

test(`Output survives hosts that vanish at any byte (seed ${SEED})`, async () => {
  const random = seededRandom(SEED);
  for (let round = 0; round < ROUNDS; round += 1) await survive(random);
});

async function survive(random: ReturnType<typeof seededRandom>): Promise<void> {
  await using guest = await startTestGuest(program);
  let life = 0;
  let cuts = 0;
  const host = makeTestHost();
  const keep = host.options.onOutput;
  const specs = ['a', 'b', 'c'].map((id, i) => {
    const last = LINES - 1;
    const out = `seq ${i * 10} ${i * 10 + last}`;
    const error = `seq ${i * 1000} ${i * 1000 + last} >&2`;
    return containerSpec(id, ['sh', '-c', `${out} & ${error} & wait; exit ${i + 1}`]);
  });
  const work = async (agent: Agent) => {
    await agent.setupPod(TEST_SETUP);
    await Promise.all(specs.map((spec) => agent.startContainer(spec)));
    await Promise.all(specs.map((spec) => host.exit(spec.id)));
  };
  while (host.exits.size < specs.length) {
    const own = (life += 1);
    host.options.onOutput = async (piece) => {
      // Some of it takes a while to become safe, and is not when its host is gone by then.
      if (random.next() < 0.3) await new Promise((resolve) => setImmediate(resolve));
      if (own !== life) throw new Error('this host is gone');
      await keep(piece);
    };
    const connected = host.connect(guest.line);
    if (cuts < CUTS_MAX) {
      cuts += 1;
      const most = random.next() < 0.3 ? EARLY_CUT_BYTES_MAX : CUT_BYTES_MAX;
      guest.line.cutAfter(1 + Math.floor(random.next() * most));
    }
    await connected.then(
      (agent) => Promise.race([work(agent).catch(() => {}), agent.closed]),
      () => {},
    );
  }
  for (const [i, spec] of specs.entries()) {
    assert.equal(host.text(spec.id, 1), numbers(i * 10), `${spec.id} stdout`);
    assert.equal(host.text(spec.id, 2), numbers(i * 1000), `${spec.id} stderr`);
    assert.equal(host.exits.get(spec.id)?.exitCode, i + 1);
  }
  assert.ok(life > 3, `${life} hosts`);
}
