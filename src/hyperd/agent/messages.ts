import type { ProcessExit } from '../../api/hyperd.ts';
import type { GuestHello, GuestStats } from './agent.ts';
import { booleanOf, integerOf, isObject, parseObject, stringOf } from './session.ts';
import { ProtocolError, PROTOCOL_VERSION, STREAM_MAX, STREAM_STEP, TIME_MS_MAX } from './wire.ts';

/** What the guest says, checked field by field. Everything throws `ProtocolError`. */

const CONTAINERS_MAX = 64;
const CONTAINER_ID = /^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$/;
const MESSAGE_CHARACTERS_MAX = 4096;
const SAFE = Number.MAX_SAFE_INTEGER;

/** A container that the guest has, with its streams: [first byte kept, one past the last read]. */
export interface HelloContainer {
  id: string;
  phase: 'running' | 'exited';
  base: number;
  /** Bytes of standard input that it took; -1 when there is none any more. */
  stdin: number;
  stdout: [number, number];
  stderr: [number, number];
}

type Json = Record<string, unknown>;

export function decodeHello(answer: Json): { hello: GuestHello; containers: HelloContainer[] } {
  const containers = arrayOf(answer, 'containers').map(decodeContainer);
  const distinct = new Set(containers.flatMap(({ id, base }) => [id, base]));
  if (distinct.size !== 2 * containers.length) throw new ProtocolError('containers: not distinct');
  const hello = {
    protocolVersion: integerOf(answer, 'protocolVersion', PROTOCOL_VERSION, PROTOCOL_VERSION),
    kernelVersion: stringOf(answer, 'kernelVersion', 64),
    bootId: stringOf(answer, 'bootId', 64),
    startedUptimeMs: integerOf(answer, 'startedUptimeMs', 0, TIME_MS_MAX),
    readyUptimeMs: integerOf(answer, 'readyUptimeMs', 0, TIME_MS_MAX),
    containers: containers.map(({ id, phase }) => ({ id, phase })),
    podReady: booleanOf(answer, 'podReady'),
  };
  return { hello, containers };
}

function decodeContainer(container: Json): HelloContainer {
  const id = stringOf(container, 'id', 64);
  const phase = stringOf(container, 'phase', 16);
  const base = integerOf(container, 'stream', STREAM_STEP, STREAM_MAX);
  if (!CONTAINER_ID.test(id)) throw new ProtocolError('container id: bad characters');
  if (phase !== 'running' && phase !== 'exited') throw new ProtocolError('phase: unknown');
  if (base % STREAM_STEP !== 0) throw new ProtocolError('stream: not a multiple of 4');
  return {
    id,
    phase,
    base,
    stdin: integerOf(container, 'stdin', -1, SAFE),
    stdout: rangeOf(container['stdout']),
    stderr: rangeOf(container['stderr']),
  };
}

function rangeOf(value: unknown): [number, number] {
  const [first, end] = Array.isArray(value) && value.length === 2 ? value : [];
  const valid = Number.isSafeInteger(first) && Number.isSafeInteger(end);
  if (!valid || first < 0 || end < first) throw new ProtocolError('range of output: bad');
  return [first, end];
}

function arrayOf(object: Json, field: string): Json[] {
  const value = object[field];
  if (!Array.isArray(value) || value.length > CONTAINERS_MAX || !value.every(isObject)) {
    throw new ProtocolError(`${field}: not an array of at most ${CONTAINERS_MAX} objects`);
  }
  return value;
}

export function decodeExit(payload: Buffer): ProcessExit {
  const exit = parseObject(payload, 'exit');
  return {
    exitCode: integerOf(exit, 'exitCode', 0, 255),
    signal: integerOf(exit, 'signal', 0, 127),
    oomKilled: booleanOf(exit, 'oomKilled'),
    reason: stringOf(exit, 'reason', 64),
    message: stringOf(exit, 'message', MESSAGE_CHARACTERS_MAX),
    finishedAtMs: integerOf(exit, 'finishedAtMs', 0, TIME_MS_MAX),
  };
}

export function decodeStats(answer: Json): GuestStats {
  const usage = (object: Json) => ({
    cpuNanos: integerOf(object, 'cpuNanos', 0, SAFE),
    memoryBytes: integerOf(object, 'memoryBytes', 0, SAFE),
  });
  const containers = arrayOf(answer, 'containers').map((container) => ({
    id: stringOf(container, 'id', 64),
    ...usage(container),
  }));
  return { ...usage(answer), containers };
}
