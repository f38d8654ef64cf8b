import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { duplexPair } from 'node:stream';
import type { Duplex } from 'node:stream';
import type { ProcessExit, ProcessSpec } from '../../../api/hyperd.ts';
import { systemClock } from '../../../base/clock.ts';
import { run, start } from '../../../base/exec.ts';
import { silentLog } from '../../../base/log.ts';
import type { Agent, GuestContainerSpec, GuestOutput, PodSetup } from '../agent.ts';
import { connectAgent } from '../client.ts';
import type { ConnectOptions } from '../client.ts';

/**
 * For tests: the real hyperstart, built with sanitizers and run as an ordinary process, on a line
 * that behaves like QEMU's virtio-serial port. The guest's end stays open for ever; hosts come
 * and go; what the guest writes while nobody is there is lost, and what a host wrote before it
 * was cut off, even half a frame, arrives.
 */

const ROOT = new URL('../../../../', import.meta.url).pathname;
const BUILD_TIMEOUT_MS = 120_000;

/** Path of the program; builds what is out of date. */
export async function buildTestGuest(): Promise<string> {
  const out = join(ROOT, 'build');
  await mkdir(out, { recursive: true });
  // Test files run at the same time.
  const make = ['make', '-s', '-C', join(ROOT, 'guest'), `OUT=${out}`, 'sanitize'];
  await run('flock', [join(out, '.guest.lock'), ...make], { timeoutMs: BUILD_TIMEOUT_MS });
  return join(out, 'hyperstart-sanitize');
}

export interface Line {
  /** A new host's end; cuts off the one before. */
  attach(): Duplex;
  cut(): void;
  /** Cuts the host off after this many further bytes in either direction. */
  cutAfter(bytes: number): void;
}

export interface TestGuest extends AsyncDisposable {
  line: Line;
  directory: string;
  /** Exit code and what it wrote to standard error, once it has ended. */
  ended: Promise<{ code: number | null; text: string }>;
}

export async function startTestGuest(program: string): Promise<TestGuest> {
  const directory = await mkdtemp(join(tmpdir(), 'hypernetes-guest-'));
  const child = start(program, ['--test-fd', '3', directory], {
    stdio: ['ignore', 'ignore', 'pipe', 'pipe'],
  });
  let text = '';
  child.stderr?.on('data', (chunk: Buffer) => (text += chunk.toString()));
  const ended = new Promise<{ code: number | null; text: string }>((resolve) => {
    child.on('close', (code) => resolve({ code, text }));
  });
  const line = makeLine(child.stdio[3] as unknown as Duplex);
  // As a VMM that ends takes its sockets with it.
  void ended.then(() => line.cut());
  return {
    line,
    directory,
    ended,
    async [Symbol.asyncDispose]() {
      line.cut();
      child.kill('SIGKILL');
      await ended;
      await rm(directory, { recursive: true, force: true });
    },
  };
}

function makeLine(guest: Duplex): Line {
  let host: Duplex | undefined;
  let left = Infinity;
  guest.on('error', () => {});
  const cut = () => {
    const previous = host;
    host = undefined;
    left = Infinity;
    previous?.destroy();
  };
  /** What may still pass of a chunk; the rest is lost with the host. */
  const pass = (chunk: Buffer) => {
    const part = chunk.subarray(0, left);
    left -= part.length;
    return part;
  };
  guest.on('data', (chunk: Buffer) => {
    const part = pass(chunk);
    host?.write(part);
    if (left <= 0) cut();
  });
  return {
    attach() {
      cut();
      const [near, far] = duplexPair({ highWaterMark: 1 << 20 });
      host = far;
      far.on('error', () => {});
      far.on('data', (chunk: Buffer) => {
        if (host !== far) return;
        guest.write(pass(chunk));
        if (left <= 0) cut();
      });
      far.on('close', () => near.destroy());
      near.on('close', () => {
        if (host === far) cut();
      });
      return near;
    },
    cut,
    cutAfter(bytes) {
      left = bytes;
    },
  };
}

/** A host that keeps what it is told, as a daemon's log and state would. */
export interface TestHost {
  options: ConnectOptions;
  output: Map<string, Buffer[]>;
  exits: Map<string, ProcessExit>;
  outputs: GuestOutput[];
  text(containerId: string, stream?: 1 | 2): string;
  exit(containerId: string): Promise<ProcessExit>;
  connect(line: Line): Promise<Agent>;
}

export function makeTestHost(overrides: Partial<ConnectOptions> = {}): TestHost {
  const output = new Map<string, Buffer[]>();
  const exits = new Map<string, ProcessExit>();
  const waiting = new Map<string, ((exit: ProcessExit) => void)[]>();
  const key = (id: string, stream: number) => `${id}/${stream}`;
  const bytesOf = (id: string, stream: number) => output.get(key(id, stream)) ?? [];
  const lengthOf = (id: string, stream: number) =>
    bytesOf(id, stream).reduce((sum, part) => sum + part.length, 0);
  const outputs: GuestOutput[] = [];
  const options: ConnectOptions = {
    clock: systemClock,
    log: silentLog,
    resumeOffsets: lengthOf,
    onOutput: async (piece) => {
      const present = lengthOf(piece.containerId, piece.stream);
      if (piece.offset !== present) throw new Error(`offset ${piece.offset}, wanted ${present}`);
      const list = bytesOf(piece.containerId, piece.stream);
      output.set(key(piece.containerId, piece.stream), [...list, Buffer.from(piece.bytes)]);
      outputs.push(piece);
    },
    onContainerExit: async (id, exit) => {
      exits.set(id, exit);
      for (const resolve of waiting.get(id) ?? []) resolve(exit);
      waiting.delete(id);
    },
    ...overrides,
  };
  return {
    options,
    output,
    exits,
    outputs,
    text: (id, stream = 1) => Buffer.concat(bytesOf(id, stream)).toString(),
    exit(id) {
      const known = exits.get(id);
      if (known) return Promise.resolve(known);
      return new Promise((resolve) => waiting.set(id, [...(waiting.get(id) ?? []), resolve]));
    },
    connect: (line) => connectAgent(line.attach(), options),
  };
}

export const TEST_SETUP: PodSetup = {
  hostname: 'pod-1',
  domain: '',
  epochMs: 1_767_225_600_000,
  entropy: Buffer.alloc(32, 1).toString('base64'),
  network: null,
  dns: { nameservers: [], searches: [], options: [] },
  hostAliases: [],
  sysctls: {},
  shareProcessNamespace: false,
  scratchSerial: 'scratch',
  volumes: [],
};

export function processSpec(argv: string[], overrides: Partial<ProcessSpec> = {}): ProcessSpec {
  return {
    argv,
    env: ['PATH=/usr/bin:/bin'],
    workingDir: '/',
    user: '',
    supplementalGroups: [],
    tty: false,
    security: {
      privileged: false,
      runAsNonRoot: false,
      noNewPrivileges: false,
      capabilities: [],
      seccompDefault: false,
    },
    ...overrides,
  };
}

export function containerSpec(
  id: string,
  argv: string[],
  overrides: Partial<GuestContainerSpec> = {},
): GuestContainerSpec {
  return {
    id,
    name: id,
    imageSerial: 'image',
    imageFsType: 'erofs',
    process: processSpec(argv),
    readOnlyRootfs: false,
    mounts: [],
    resources: { cpuMillis: 0, cpuWeightMillis: 100, memoryBytes: 0 },
    terminationMessagePath: '/dev/termination-log',
    stdin: false,
    ...overrides,
  };
}

export async function textOf(stream: AsyncIterable<Buffer>): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}
