import { fork } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { differs } from '../support/attempt.ts';
import type { Attempt, Try, Verdict } from '../support/attempt.ts';
import type { Answer, Request } from '../support/client.ts';
import type { FloodOrder } from '../support/flood.child.ts';
import type { Who, World } from '../support/world.ts';

const SAMPLES = 100;
const CLIENTS = 64;
/** How much longer the victim may wait, and what a busy machine adds to everything. */
const FACTOR_MAX = 5;
const FLOOR_MS = 100;
/** The slowest of all are the machine's: the benchmark tells the 99th percentile. */
const PART = 0.9;
const LARGE_COUNT = 200;
const LARGE_BYTES = 1_000;

const quantile = (samples: number[], part: number): number =>
  [...samples].sort((a, b) => a - b)[Math.floor(samples.length * part)] ?? Number.NaN;

const said = (text: string): Answer => ({ status: 200, headers: {}, text, tookMs: 0 });

async function latencies(world: World, who: Who, request: Request, count: number) {
  const tookMs: number[] = [];
  for (let index = 0; index < count; index += 1) {
    tookMs.push((await world.send(who, request)).tookMs);
  }
  return tookMs;
}

/** In turns, so that what else the machine does befalls both. */
const timing =
  (there: string, absent: string, who: Who): Try =>
  async (world) => {
    const [one, other]: [number[], number[]] = [[], []];
    for (let index = 0; index < SAMPLES; index += 1) {
      one.push(...(await latencies(world, who, { path: there }, 1)));
      other.push(...(await latencies(world, who, { path: absent }, 1)));
    }
    // The fastest half tells more than the rest, which is the machine's.
    const [a, b] = [quantile(one, 0.25), quantile(other, 0.25)];
    const apart = Math.abs(a - b) / Math.min(a, b);
    return said(apart > APART_MAX ? `${a.toFixed(3)} and ${b.toFixed(3)} ms` : '');
  };

const APART_MAX = 0.25;
const quick: Verdict = ({ text }) => (text === '' ? undefined : text);

const times: Attempt[] = [
  ['a namespace', '/api/v1/namespaces/acme', '/api/v1/namespaces/acmf'],
  ['pods', '/api/v1/namespaces/acme/pods', '/api/v1/namespaces/acmf/pods'],
  ['a Secret', '/api/v1/namespaces/acme/secrets/target', '/api/v1/namespaces/acme/secrets/absent'],
  ['a tenant', '/apis/hypernetes.io/v1/tenants/acme', '/apis/hypernetes.io/v1/tenants/acmf'],
].map(([name, there, absent]): Attempt => ({
  name: `tells by the time of an answer whether ${name as string} is there`,
  by: ['bob'],
  attack: timing(there as string, absent as string, 'bob'),
  expect: quick,
  control: {
    by: ['operator'],
    // What differs: a large answer and a small one.
    try: timing('/openapi/v2', '/api/v1/namespaces/acmf/configmaps', 'operator'),
    expect: differs,
  },
}));

const LISTS = '/api/v1/namespaces/globex/configmaps';
const ASKED: Request = { path: '/api/v1/namespaces/acme/configmaps' };

type Flood = (world: World) => Request;

const FLOODS: Record<string, Flood> = {
  'new objects': () => ({
    ...{ method: 'POST', path: `${LISTS}?dryRun=All` },
    body: { metadata: { generateName: 'flood-' }, data: { x: 'x'.repeat(LARGE_BYTES) } },
  }),
  'objects of a thousand fields': () => ({
    method: 'POST',
    path: `${LISTS}?dryRun=All`,
    body: WIDE,
  }),
};

const WIDE = {
  metadata: { generateName: 'wide-' },
  data: Object.fromEntries(Array.from({ length: 1_000 }, (_, index) => [`k${index}`, 'v'])),
};

/** Runs `work` while the attacker's clients ask for the same again and again. */
async function flooded<T>(world: World, request: Request, work: () => Promise<T>): Promise<T> {
  const child = fork(join(import.meta.dirname, '../support/flood.child.ts'));
  const exited = once(child, 'exit');
  const { method = 'GET', path, body, headers } = request;
  const order: FloodOrder = {
    ...{ port: world.port, ca: world.pki.caCert, clientCount: CLIENTS, method, path },
    headers: {
      authorization: `Bearer ${world.credentials.bob.token}`,
      'content-type': 'application/json',
      ...(headers as Record<string, string>),
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  };
  try {
    child.send(order);
    await once(child, 'message');
    return await work();
  } finally {
    child.kill('SIGKILL');
    await exited;
  }
}

const prepared = new WeakMap<World, Promise<void>>();

function prepare(world: World): Promise<void> {
  let done = prepared.get(world);
  if (!done) prepared.set(world, (done = fill(world)));
  return done;
}

async function fill(world: World): Promise<void> {
  const data = { filling: 'x'.repeat(LARGE_BYTES) };
  for (let index = 0; index < LARGE_COUNT; index += 1) {
    const body = { metadata: { name: `large-${index}` }, data };
    await world.want('bob', { method: 'POST', path: LISTS, body });
  }
}

const floods = Object.entries(FLOODS).map(([name, request]): Attempt => ({
  name: `slows the victim by ${CLIENTS} clients with ${name}`,
  by: ['bob'],
  attack: async (world) => {
    await prepare(world);
    const alone = quantile(await latencies(world, 'alice', ASKED, SAMPLES), PART);
    const among = await flooded(world, request(world), async () =>
      quantile(await latencies(world, 'alice', ASKED, SAMPLES), PART),
    );
    const text = `p90 ${alone.toFixed(1)} ms alone, ${among.toFixed(1)} ms among ${name}`;
    return said(among <= Math.max(FACTOR_MAX * alone, FLOOR_MS) ? '' : text);
  },
  expect: quick,
  control: {
    by: ['bob'],
    // The flood is one: it slows who sends it.
    try: async (world) => {
      const alone = quantile(await latencies(world, 'bob', request(world), 8), 0.5);
      const among = await flooded(world, request(world), async () =>
        quantile(await latencies(world, 'bob', request(world), 8), 0.5),
      );
      return said(among > 1.5 * alone ? 'slower' : '');
    },
    expect: differs,
  },
}));

export const FLOOD_ATTEMPTS: Attempt[] = [...times, ...floods];
