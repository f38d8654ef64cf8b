import type { Duplex } from 'node:stream';
import type { Random } from '../../../base/random.ts';
import { DATA_PREFIX_BYTES, FRAME, FRAME_HEADER_BYTES, MAGIC, NONCE_BYTES } from '../wire.ts';
import { encodeData, encodeEnd, encodeFrame, encodeWindow } from '../wire.ts';

/**
 * For tests: a guest that knows the protocol, keeps to it most of the time so that it gets far,
 * and then does what a sound one never would.
 */

/** What it remembers from one session to the next, as a VM does. */
export interface HostileState {
  containers: Map<string, { base: number; phase: string }>;
  /** Bytes that each output has sent, so that resumption can be right or wrong. */
  sent: Map<number, number>;
}

/** Share of what is sent that is wrong. */
const WRONG = 0.03;
const ACTIONS_MAX = 3;
const WINDOW_BYTES = 262_144;
/** Of a random chunk, and of a run of pieces of one byte. */
const BYTES_MAX = 3_000;
const PIECES_MAX = 50;

type Json = Record<string, unknown>;

export function serveHostileGuest(line: Duplex, state: HostileState, random: Random): void {
  const integer = (max: number) => Math.floor(random.next() * (max + 1));
  const pick = <T>(list: readonly T[]): T | undefined => list[integer(list.length - 1)];
  const json = (value: unknown) => Buffer.from(JSON.stringify(value));
  const limits = new Map<number, number>();
  const inputs = new Map<number, number>();
  let pending: Buffer = Buffer.alloc(0);
  let greeted = false;
  let body: Buffer[] = [];

  const flip = (frame: Buffer) => {
    const copy = Buffer.from(frame);
    copy[integer(copy.length - 1)] = integer(255);
    return random.next() < 0.8 ? copy : copy.subarray(0, integer(copy.length));
  };
  const say = (frame: Buffer) => {
    if (!line.writable) return;
    line.write(random.next() < WRONG / 4 ? flip(frame) : frame);
    if (random.next() < WRONG / 4) line.write(frame);
  };
  const outputs = () => [...limits.keys()];
  const sentOf = (id: number) => state.sent.get(id) ?? 0;

  const sayData = (length: number) => {
    const id = pick(outputs());
    if (id === undefined) return;
    const room = Math.min(length, (limits.get(id) ?? 0) - sentOf(id));
    const wrong = random.next() < WRONG;
    if (room <= 0 && !wrong) return;
    const bytes = Buffer.from(random.bytes(Math.max(1, room)));
    say(encodeData(id, Math.max(0, sentOf(id) + (wrong ? integer(8) - 4 : 0)), bytes));
    state.sent.set(id, sentOf(id) + bytes.length);
  };
  const exit = () => ({
    exitCode: integer(260),
    signal: integer(130),
    oomKilled: random.next() < 0.5,
    reason: 'Error',
    message: 'x'.repeat(integer(10)),
    finishedAtMs: pick([0, 1, 16_725_225_600_000, 16_725_225_600_001, 2 ** 53 - 1, -1, 0.5]),
  });
  const actions: (() => void)[] = [
    () => sayData(integer(BYTES_MAX)),
    () => sayData(integer(BYTES_MAX)),
    () => {
      for (let i = integer(PIECES_MAX); i > 0; i -= 1) sayData(1);
    },
    () => {
      const [id, taken] = pick([...inputs]) ?? [4, 0];
      const late = random.next() < 0.2 ? integer(taken) : taken;
      const wide = random.next() < WRONG ? pick([1, 2 ** 31, 2 ** 50]) : 0;
      say(encodeWindow(id, late, late + WINDOW_BYTES + (wide ?? 0)));
    },
    () => {
      const id = pick(outputs());
      if (id === undefined || random.next() > 0.3) return;
      say(encodeEnd(id, sentOf(id)));
      if (random.next() > WRONG) limits.delete(id);
    },
    () => {
      if (random.next() > 0.3) return;
      const base = pick([...inputs.keys()]) ?? 4;
      say(encodeFrame(FRAME.exit, base, json(exit())));
    },
    () => {
      if (random.next() < 0.2) say(encodeFrame(FRAME.reset, 4 * integer(8), Buffer.from('why')));
    },
    () => {
      if (random.next() > WRONG) return;
      const type = pick(Object.values(FRAME)) ?? 1;
      say(encodeFrame(type, integer(40), Buffer.from(random.bytes(integer(40)))));
    },
  ];
  const act = () => {
    for (let i = integer(ACTIONS_MAX); i > 0; i -= 1) pick(actions)?.();
    if (random.next() < WRONG / 4) line.destroy();
  };

  const open = (base: number, window: number) => {
    inputs.set(base, 0);
    for (const id of [base + 1, base + 2]) {
      state.sent.set(id, 0);
      limits.set(id, window);
    }
  };
  const hello = () => ({
    protocolVersion: 2,
    kernelVersion: '6',
    bootId: 'x',
    startedUptimeMs: 1,
    readyUptimeMs: 2,
    podReady: random.next() < 0.5,
    containers: [...state.containers].map(([id, { base, phase }]) => {
      inputs.set(base, 0);
      const range = (at: number) => [integer(random.next() < WRONG ? 9 : 0), sentOf(at)];
      return {
        id,
        phase,
        stream: base,
        stdin: 0,
        stdout: range(base + 1),
        stderr: range(base + 2),
      };
    }),
  });
  const answer = (request: Json): unknown => {
    const base = Number(request['stream']);
    if (random.next() < WRONG) return pick([[], { ok: 1 }, { ok: {} }, { error: { reason: 5 } }]);
    if (random.next() < 0.1) return { error: { reason: 'Invalid', message: 'no', exitCode: 0 } };
    if (request['op'] === 'hello') return { ok: hello() };
    if (request['op'] === 'volumeBegin') return { ok: { current: -1 } };
    if (request['op'] === 'stats') return { ok: { cpuNanos: 1, memoryBytes: 1, containers: [] } };
    if (request['op'] === 'startContainer' && !state.containers.has(String(request['id']))) {
      state.containers.set(String(request['id']), { base, phase: 'running' });
    }
    if (Number.isInteger(base)) open(base, Number(request['window'] ?? 0));
    return { ok: Number.isInteger(base) ? { stream: base } : {} };
  };

  const take = (type: number, id: number, payload: Buffer, more: boolean) => {
    if (type === FRAME.request) {
      body.push(payload);
      if (more) return;
      const whole = Buffer.concat(body);
      body = [];
      const request = JSON.parse(whole.toString('utf8', 4, 4 + whole.readUInt32LE(0))) as Json;
      if (random.next() > WRONG) say(encodeFrame(FRAME.response, id, json(answer(request))));
    } else if (type === FRAME.data) {
      const end = Number(payload.readBigUInt64LE(0)) + payload.length - DATA_PREFIX_BYTES;
      inputs.set(id, end);
    } else if (type === FRAME.window) {
      const [safe, limit] = [payload.readBigUInt64LE(0), payload.readBigUInt64LE(8)].map(Number);
      // The first window of a session says where to go on.
      if (!limits.has(id)) state.sent.set(id, safe ?? 0);
      limits.set(id, limit ?? 0);
    }
    act();
  };

  line.on('error', () => {});
  line.on('data', (chunk: Buffer) => {
    pending = Buffer.concat([pending, chunk]);
    const greeting = MAGIC.length + NONCE_BYTES;
    if (!greeted) {
      if (pending.length < greeting) return;
      line.write(
        Buffer.concat([Buffer.from(random.bytes(integer(60))), pending.subarray(0, greeting)]),
      );
      pending = pending.subarray(greeting);
      greeted = true;
    }
    while (pending.length >= FRAME_HEADER_BYTES) {
      const end = FRAME_HEADER_BYTES + pending.readUInt32LE(8);
      if (pending.length < end) return;
      const [type = 0, flags = 0] = pending;
      take(type, pending.readUInt32LE(4), pending.subarray(FRAME_HEADER_BYTES, end), flags === 1);
      pending = pending.subarray(end);
    }
  });
}
