import { once } from 'node:events';
import { PassThrough, Writable } from 'node:stream';
import type { Duplex } from 'node:stream';
import type { ProcessExit, ProcessSpec, VolumeFiles } from '../../../api/hyperd.ts';
import { AgentError } from '../../agent/agent.ts';
import type {
  Agent,
  AgentOptions,
  GuestContainerSpec,
  GuestProcess,
  PodSetup,
} from '../../agent/agent.ts';
import type { FakeGuest } from '../../vmm/fake/fake.ts';

/**
 * The inside of a pretended VM, as far as the daemon can tell: containers that print and exit when
 * a test says so, what is not acknowledged is kept for the next session, exits are repeated until
 * somebody has taken them.
 */
export interface ScriptedGuest {
  readonly vm: FakeGuest;
  setup: PodSetup | undefined;
  /** The setup of the rehearsal, where there was one. */
  rehearsal: PodSetup | undefined;
  /** Serials of the images that it was to read before it was a pod's. */
  readonly prefetched: string[];
  readonly containers: Map<string, ScriptedContainer>;
  readonly volumes: Map<string, VolumeFiles>;
  readonly signals: { id: string; signal: number }[];
  readonly processes: ScriptedProcess[];
  /** What its clock was set to, one after the other. */
  readonly clocks: number[];
  /** Runs before each answer; throws what the guest refuses, or keeps the caller waiting. */
  before: (op: string, id: string) => Promise<void> | void;
  /** Sessions so far. */
  sessionCount: number;
  print(id: string, text: string, stream?: 1 | 2): Promise<void>;
  exit(id: string, exitCode: number, signal?: number): Promise<void>;
  /** Ends the session as a broken line does; resolves when there is a new one. */
  cut(): Promise<void>;
  /** What the daemon calls `connectAgent` for. */
  open(connection: Duplex, options: AgentOptions): Agent;
}

export interface ScriptedContainer {
  spec: GuestContainerSpec;
  output: Record<1 | 2, Buffer>;
  exit: ProcessExit | undefined;
  stdin: Buffer[];
}

export interface ScriptedProcess {
  spec: ProcessSpec;
  stdin: PassThrough;
  stdout: PassThrough;
  stderr: PassThrough;
  exit(exitCode: number): void;
  closed: boolean;
}

const EPOCH_MS = 1_767_225_600_000;

function processExit(exitCode: number, signal = 0): ProcessExit {
  const reason = exitCode === 0 ? 'Completed' : 'Error';
  const finishedAtMs = EPOCH_MS;
  return { exitCode, signal, oomKilled: false, reason, message: '', finishedAtMs };
}

export function createScriptedGuest(vm: FakeGuest): ScriptedGuest {
  let session: { connection: Duplex; options: AgentOptions } | undefined;
  const reopened: (() => void)[] = [];
  /** One at a time, so that output comes in order and an exit after it. */
  let delivering: Promise<void> = Promise.resolve();
  const flush = () => {
    // What was sent before the line broke arrives.
    const current = session;
    delivering = delivering.then(() => deliver(current)).catch(() => {});
    return delivering;
  };
  const deliver = async (current: typeof session) => {
    if (!current) return;
    for (const [containerId, { output, exit }] of guest.containers) {
      for (const stream of [1, 2] as const) {
        const offset = current.options.resumeOffsets(containerId, stream);
        const bytes = output[stream].subarray(offset);
        const timeMs = EPOCH_MS;
        if (bytes.length === 0) continue;
        await current.options.onOutput({ containerId, stream, offset, bytes, timeMs });
      }
      if (exit) await current.options.onContainerExit(containerId, exit);
    }
  };
  const containerOf = (id: string) => {
    const container = guest.containers.get(id);
    if (!container) throw new AgentError('NotFound', `container "${id}" does not exist`);
    return container;
  };
  const guest: ScriptedGuest = {
    vm,
    setup: undefined,
    rehearsal: undefined,
    prefetched: [],
    containers: new Map(),
    volumes: new Map(),
    signals: [],
    processes: [],
    clocks: [],
    before: () => {},
    sessionCount: 0,
    async print(id, text, stream = 1) {
      const { output } = containerOf(id);
      output[stream] = Buffer.concat([output[stream], Buffer.from(text)]);
      await flush();
    },
    async exit(id, exitCode, signal = 0) {
      containerOf(id).exit = processExit(exitCode, signal);
      await flush();
    },
    cut() {
      const { promise, resolve } = Promise.withResolvers<void>();
      reopened.push(resolve);
      session?.connection.destroy();
      return promise;
    },
    open(connection, options) {
      guest.sessionCount += 1;
      session = { connection, options };
      connection.on('close', () => {
        if (session?.connection === connection) session = undefined;
      });
      const agent = makeAgent(guest, connection, containerOf);
      void flush();
      for (const resolve of reopened.splice(0)) resolve();
      return agent;
    },
  };
  return guest;
}

function makeAgent(
  guest: ScriptedGuest,
  connection: Duplex,
  containerOf: (id: string) => ScriptedContainer,
): Agent {
  const closed = once(connection, 'close').then(() => undefined);
  /** What the line's end interrupts is told as such. */
  const answer = async <T>(op: string, id: string, work: () => T | Promise<T>): Promise<T> => {
    const over = closed.then(() => {
      throw new AgentError('Closed', `${op}: the session with the guest is over`);
    });
    over.catch(() => {});
    if (connection.destroyed) return over;
    const done = (async () => {
      await guest.before(op, id);
      return connection.destroyed ? over : work();
    })();
    done.catch(() => {});
    return Promise.race([done, over]);
  };
  return {
    hello: {
      protocolVersion: 2,
      kernelVersion: '6.1.0-fake',
      bootId: guest.setup === undefined ? '' : `boot-${guest.vm.spec.id}`,
      startedUptimeMs: 10,
      readyUptimeMs: 12,
      containers: [...guest.containers].map(([id, { exit }]) => ({
        id,
        phase: exit ? 'exited' : 'running',
      })),
      podReady: guest.setup !== undefined,
    },
    setupPod: (setup) =>
      answer('setupPod', '', () => {
        if (setup.rehearsal === true) {
          guest.rehearsal = setup;
          return { bootId: '' };
        }
        guest.setup = setup;
        return { bootId: `boot-${guest.vm.spec.id}` };
      }),
    prefetch: ({ imageSerial }) =>
      answer('prefetch', imageSerial, () => void guest.prefetched.push(imageSerial)),
    endRehearsal: () => answer('endRehearsal', '', () => {}),
    startContainer: (spec) =>
      answer('startContainer', spec.id, () => {
        if (guest.containers.has(spec.id)) return;
        const empty = Buffer.alloc(0);
        const output = { 1: empty, 2: empty };
        guest.containers.set(spec.id, { spec, output, exit: undefined, stdin: [] });
      }),
    signalContainer: (id, signal) =>
      answer('signal', id, () => {
        containerOf(id);
        guest.signals.push({ id, signal });
      }),
    setResources: (id, resources) =>
      answer('setResources', id, () => {
        const container = containerOf(id);
        container.spec = { ...container.spec, resources };
      }),
    removeContainer: (id) => answer('removeContainer', id, () => void guest.containers.delete(id)),
    writeVolume: (name, content) =>
      answer('writeVolume', name, () => void guest.volumes.set(name, content)),
    exec: (id, process) => answer('exec', id, () => startProcess(guest, process, closed)),
    resizeContainer: () => Promise.resolve(),
    containerStdin: (id) =>
      new Writable({
        write(chunk: Buffer, _encoding, done) {
          containerOf(id).stdin.push(chunk);
          done();
        },
      }),
    connectPort: (port) => answer('connectPort', String(port), () => echo()),
    probe: (request) =>
      answer('probe', request.type, () => ({ success: true, message: request.type })),
    stats: () => answer('stats', '', () => ({ cpuNanos: 1, memoryBytes: 2, containers: [] })),
    setClock: (epochMs) => answer('setClock', '', () => void guest.clocks.push(epochMs)),
    shutdown: () => Promise.resolve(),
    hold: () => {},
    closed,
    close: () => void connection.destroy(),
  };
}

function startProcess(
  guest: ScriptedGuest,
  spec: ProcessSpec,
  closed: Promise<undefined>,
): GuestProcess {
  const ended = Promise.withResolvers<ProcessExit>();
  ended.promise.catch(() => {});
  const streams = {
    stdin: new PassThrough(),
    stdout: new PassThrough(),
    stderr: new PassThrough(),
  };
  for (const stream of Object.values(streams)) stream.on('error', () => {});
  const process: ScriptedProcess = {
    spec,
    ...streams,
    closed: false,
    exit(exitCode) {
      streams.stdout.end();
      streams.stderr.end();
      ended.resolve(processExit(exitCode));
    },
  };
  guest.processes.push(process);
  const fail = () => {
    const error = new AgentError('Closed', 'exec: closed');
    for (const stream of Object.values(streams)) stream.destroy(error);
    ended.reject(error);
  };
  void closed.then(fail);
  return {
    ...streams,
    exited: ended.promise,
    resize: () => Promise.resolve(),
    signal: (signal) => {
      if (signal === 9) process.exit(137);
      return Promise.resolve();
    },
    close() {
      if (streams.stdout.writableEnded) return;
      process.closed = true;
      fail();
    },
  };
}

/** A server that answers with what it is told, and ends when its peer has. */
function echo(): Duplex {
  return new PassThrough({ allowHalfOpen: true });
}
