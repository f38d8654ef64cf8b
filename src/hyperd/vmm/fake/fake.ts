import { Duplex } from 'node:stream';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '../../../base/clock.ts';
import { readFileIfExists } from '../../../base/files.ts';
import { HypervisorError } from '../hypervisor.ts';
import type {
  DiskSpec,
  Hypervisor,
  HypervisorCapability,
  HypervisorInfo,
  Vm,
  VmExit,
  VmLimits,
  VmSpec,
} from '../hypervisor.ts';
import { requireCapability, validateLimits, validateSerial, validateVmSpec } from '../validate.ts';

/** What a pretended VM's inside is told to do. */
export interface FakeGuest {
  readonly spec: VmSpec;
  /** What its template's clones find in their memory. */
  readonly memory: Map<string, string>;
  /** All disks that the VM has now, those of the boot first. */
  disks(): DiskSpec[];
  /** Writes to the VM's console. */
  print(text: string): void;
  /** Ends the VM as its kernel would. */
  powerOff(): void;
  panic(message: string): void;
  /** Aborts when the VM has ended. */
  readonly signal: AbortSignal;
}

export interface FakeHypervisorOptions {
  clock: Clock;
  /** @default all that there are */
  capabilities?: HypervisorCapability[];
  /**
   * The agent inside: called with the guest's end of each control connection. The default one
   * reads and says nothing.
   */
  agent?: (connection: Duplex, guest: FakeGuest) => void;
  /** Called once when a VM boots. */
  boot?: (guest: FakeGuest) => void;
  /** Asked before each step. A returned error is thrown; a promise makes the step slow. */
  fault?: (step: FakeStep, vmId: string) => Promise<Error | undefined> | Error | undefined;
}

export type FakeStep =
  'create' | 'adopt' | 'connectControl' | 'attachDisk' | 'detachDisk' | 'saveTemplate' | 'kill';

export interface FakeHypervisor extends Hypervisor {
  /** What is taken out of it cannot be done from then on. */
  readonly capabilities: Set<HypervisorCapability>;
  /** VMs that run, by id. For tests that end or inspect them from outside. */
  readonly running: ReadonlyMap<string, FakeMachine>;
}

export interface FakeMachine {
  readonly guest: FakeGuest;
  readonly paused: boolean;
  readonly limits: VmLimits;
  /** Ends it as something outside would: a signal, a failed emulator. */
  end(exit: VmExit): void;
}

interface Machine extends FakeMachine {
  vm: Vm;
  paused: boolean;
  limits: VmLimits;
}

/** As much of the console as `consoleTail` can be asked for. */
const CONSOLE_BYTES_MAX = 64 << 10;
const STATE_FILE = 'vm.json';
const EXIT_FILE = 'exit.json';
const TEMPLATE_FILE = 'state';

const ALL_CAPABILITIES: HypervisorCapability[] = ['template', 'pause', 'disk-hotplug'];

/** Its pids name no process: they lie above what Linux hands out. */
const PID_BASE = 2 ** 23;

/**
 * Virtual machines that are objects in this process, for tests of everything above and for
 * thousands of pretended pods. A VM outlives its daemon as long as the hypervisor object does.
 */
export function createFakeHypervisor(options: FakeHypervisorOptions): FakeHypervisor {
  const running = new Map<string, Machine>();
  let nextPid = PID_BASE;
  const step = async (name: FakeStep, vmId: string, signal?: AbortSignal) => {
    signal?.throwIfAborted();
    const error = await options.fault?.(name, vmId);
    signal?.throwIfAborted();
    if (error !== undefined) throw error;
  };
  const self = { name: 'fake', capabilities: new Set(options.capabilities ?? ALL_CAPABILITIES) };
  const made = { ...options, require: requireCapability.bind(undefined, self) };
  return {
    ...self,
    running,
    probe: async (): Promise<HypervisorInfo> => ({
      accelerator: 'fake',
      acceleratorReason: 'Virtual machines are pretended',
      version: '1',
      templateFormat: '',
      overheadMemoryMib: 0,
    }),
    async create(spec, signal) {
      validateVmSpec(spec);
      if (spec.template !== undefined) made.require('template');
      if (running.has(spec.id)) {
        throw new HypervisorError('Invalid', `Cannot start VM "${spec.id}": it runs already`);
      }
      await step('create', spec.id, signal);
      const memory = await readTemplate(spec);
      await writeFile(join(spec.directory, STATE_FILE), JSON.stringify(spec));
      const machine = createMachine(spec, memory, nextPid++, made, step, () =>
        running.delete(spec.id),
      );
      running.set(spec.id, machine);
      options.boot?.(machine.guest);
      return machine.vm;
    },
    async adopt(directory, signal) {
      const text = await readFileIfExists(join(directory, STATE_FILE));
      if (text === undefined) return undefined;
      const spec = JSON.parse(text) as VmSpec;
      await step('adopt', spec.id, signal);
      const machine = running.get(spec.id);
      if (machine !== undefined) return machine.vm;
      const dead = createMachine(spec, new Map(), nextPid++, made, step, () => {});
      dead.end(await readExit(directory));
      return dead.vm;
    },
    async destroy(directory) {
      const text = await readFileIfExists(join(directory, STATE_FILE));
      if (text !== undefined) await running.get((JSON.parse(text) as VmSpec).id)?.vm.kill();
    },
    close: async () => {},
  };
}

async function readTemplate({ template }: VmSpec): Promise<Map<string, string>> {
  if (template === undefined || template.role === 'source') return new Map();
  const text = await readFileIfExists(join(template.directory, TEMPLATE_FILE));
  try {
    return new Map(JSON.parse(text ?? '') as [string, string][]);
  } catch (error) {
    const message = `Cannot start from template "${template.directory}": it is not whole`;
    throw new HypervisorError('Failed', message, error);
  }
}

async function readExit(directory: string): Promise<VmExit> {
  const text = await readFile(join(directory, EXIT_FILE), 'utf8').catch(() => undefined);
  if (text !== undefined) return JSON.parse(text) as VmExit;
  const message = 'The VM ended with the process that pretended it';
  return { reason: 'killed', exitCode: undefined, signal: 'SIGKILL', message };
}

function createMachine(
  spec: VmSpec,
  memory: Map<string, string>,
  pid: number,
  options: FakeHypervisorOptions & { require: (capability: HypervisorCapability) => void },
  step: (name: FakeStep, vmId: string, signal?: AbortSignal) => Promise<void>,
  gone: () => void,
): Machine {
  const disks = new Map(spec.disks.map((disk) => [disk.serial, disk]));
  const boot = new Set(disks.keys());
  const life = new AbortController();
  const ended = Promise.withResolvers<VmExit>();
  const startedMs = options.clock.monotonicMs();
  let console = '';
  const requireAlive = () => {
    if (life.signal.aborted) throw new HypervisorError('Gone', `VM "${spec.id}" has ended`);
  };
  const end = (exit: VmExit) => {
    if (life.signal.aborted) return;
    life.abort(new HypervisorError('Gone', `VM "${spec.id}" has ended`));
    gone();
    // The file first: who has seen `exited` may start a new daemon that asks for the truth.
    void writeFile(join(spec.directory, EXIT_FILE), JSON.stringify(exit))
      .catch(() => {})
      .then(() => ended.resolve(exit));
  };
  const guest: FakeGuest = {
    spec,
    memory,
    disks: () => [...disks.values()],
    print: (text) => {
      console = (console + text).slice(-CONSOLE_BYTES_MAX);
    },
    powerOff: () =>
      end({
        reason: 'powered-off',
        exitCode: 0,
        signal: undefined,
        message: 'The guest powered off',
      }),
    panic(message) {
      guest.print(`Kernel panic - not syncing: ${message}\n`);
      end({
        reason: 'panicked',
        exitCode: 0,
        signal: undefined,
        message: `Kernel panic: ${message}`,
      });
    },
    signal: life.signal,
  };
  const vm: Vm = {
    id: spec.id,
    pid,
    exited: ended.promise,
    async connectControl(signal) {
      await step('connectControl', spec.id, signal);
      requireAlive();
      const [ours, theirs] = duplexPair(life.signal);
      (options.agent ?? ((connection) => void connection.resume()))(theirs, guest);
      return ours;
    },
    async attachDisk(disk, signal) {
      options.require('disk-hotplug');
      validateSerial(disk.serial);
      await step('attachDisk', spec.id, signal);
      requireAlive();
      if (!disks.has(disk.serial)) disks.set(disk.serial, disk);
    },
    async detachDisk(serial, signal) {
      options.require('disk-hotplug');
      await step('detachDisk', spec.id, signal);
      requireAlive();
      if (boot.has(serial)) {
        const message = `Cannot detach disk "${serial}": the VM was started with it`;
        throw new HypervisorError('Invalid', message);
      }
      disks.delete(serial);
    },
    async pause() {
      options.require('pause');
      requireAlive();
      machine.paused = true;
    },
    async resume() {
      options.require('pause');
      requireAlive();
      machine.paused = false;
    },
    async saveTemplate(signal) {
      await step('saveTemplate', spec.id, signal);
      requireAlive();
      if (spec.template === undefined || spec.template.role === 'clone') {
        const message = `VM "${spec.id}" is neither source nor heir of a template`;
        throw new HypervisorError('Invalid', message);
      }
      const path = join(spec.template.directory, TEMPLATE_FILE);
      await writeFile(path, JSON.stringify([...memory]));
      const message = 'The VM was ended by its host';
      end({ reason: 'killed', exitCode: 0, signal: undefined, message });
      await ended.promise;
    },
    async setLimits(limits) {
      validateLimits(limits);
      requireAlive();
      machine.limits = limits;
    },
    async stats() {
      requireAlive();
      const aliveMs = options.clock.monotonicMs() - startedMs;
      return { cpuNanos: Math.round(aliveMs * 1e4), rssBytes: spec.memoryMib * 2 ** 19 };
    },
    consoleTail: async (bytesMax) => Buffer.from(console).subarray(-bytesMax).toString('utf8'),
    // Nothing holds it: `adopt` returns the same object.
    release: () => {},
    async kill() {
      await step('kill', spec.id);
      const message = 'The VM was killed as requested';
      end({ reason: 'killed', exitCode: undefined, signal: 'SIGKILL', message });
      await ended.promise;
    },
  };
  const machine: Machine = { vm, guest, paused: false, limits: spec.limits, end };
  return machine;
}

/** Two ends of one connection, under flow control both ways; both die with `signal`. */
function duplexPair(signal: AbortSignal): [Duplex, Duplex] {
  const make = (): { end: Duplex; peer: { current: Duplex | undefined } } => {
    const peer: { current: Duplex | undefined } = { current: undefined };
    let resume: (() => void) | undefined;
    const end = new Duplex({
      read() {
        resume?.();
        resume = undefined;
      },
      write(chunk: Buffer, _encoding, done) {
        const other = peer.current as Duplex & {
          accept: (chunk: Buffer, done: () => void) => void;
        };
        other.accept(chunk, done);
      },
      final(done) {
        peer.current?.push(null);
        done();
      },
      destroy(error, done) {
        resume?.();
        peer.current?.destroy();
        done(error);
      },
    });
    const accept = (chunk: Buffer, done: () => void) => {
      if (end.destroyed || end.push(chunk)) done();
      else resume = done;
    };
    return { end: Object.assign(end, { accept }), peer };
  };
  const [a, b] = [make(), make()];
  a.peer.current = b.end;
  b.peer.current = a.end;
  const abort = () => a.end.destroy();
  signal.addEventListener('abort', abort, { once: true });
  a.end.once('close', () => signal.removeEventListener('abort', abort));
  return [a.end, b.end];
}
