import { once } from 'node:events';
import { mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import type { Duplex } from 'node:stream';
import type {
  ContainerState,
  HyperContainerSpec,
  HyperPodSpec,
  PodState,
} from '../../../api/hyperd.ts';
import { decodeLogRecords } from '../../../api/hyperlog.ts';
import { systemClock } from '../../../base/clock.ts';
import type { Clock } from '../../../base/clock.ts';
import { silentLog } from '../../../base/log.ts';
import { seededRandom } from '../../../base/random.ts';
import { createFakeNetwork } from '../../../network/fake.ts';
import type { NetworkDriver } from '../../../network/driver.ts';
import type { AgentOptions } from '../../agent/agent.ts';
import { ImageError } from '../../image/store.ts';
import type { Image, ImageLease, ImageStore } from '../../image/store.ts';
import { createFakeHypervisor } from '../../vmm/fake/fake.ts';
import type { FakeHypervisor, FakeStep } from '../../vmm/fake/fake.ts';
import { startDaemon } from '../daemon.ts';
import type { Daemon } from '../daemon.ts';
import type { PodRecord } from '../record.ts';
import { processSpec } from '../../agent/testing/guest.ts';
import { createFakeKernels } from '../../guestkernel/store.fake.ts';
import { createScriptedGuest } from './guest.fake.ts';
import type { ScriptedGuest } from './guest.fake.ts';
import type { MortalProcess } from './crash.ts';

/** A daemon whose VMs, network and images are pretended; its files are real. */
export interface Rig {
  directory: string;
  hypervisor: FakeHypervisor;
  network: NetworkDriver;
  images: FakeImages;
  /** Of the daemons that are started from now on. @default the system's */
  clock: Clock;
  /**
   * A daemon on what is there. The one before it has to be closed, or to have died.
   * @param process in which it runs. @default one that lives
   */
  start(process?: MortalProcess): Promise<Daemon>;
  /** The VM of a pod as its guest sees it. Throws where there is none. */
  guest(podId: string): ScriptedGuest;
  fault: (step: FakeStep, vmId: string) => Promise<Error | undefined> | Error | undefined;
  /** Called with each guest before it can be reached. */
  onBoot: (guest: ScriptedGuest) => void;
  /** Changes what the next daemon will find of a pod. */
  editRecord(podId: string, edit: (record: PodRecord) => void): Promise<void>;
  /** Names in the pods' and in the VMs' directory. */
  podDirectories(): Promise<string[]>;
  [Symbol.asyncDispose](): Promise<void>;
}

export interface FakeImages extends ImageStore {
  present: Map<string, Image>;
}

export const IMAGE_ID = `sha256:${'ab'.repeat(32)}`;

/** @param kernels names of those that the node has beside its default one */
export async function createRig(...kernels: string[]): Promise<Rig> {
  const directory = await mkdtemp(join(tmpdir(), 'hyperd-'));
  const random = seededRandom(1);
  const guests = new Map<string, ScriptedGuest>();
  const daemons: Daemon[] = [];
  const recordPath = (podId: string) => join(directory, 'pods', podId, 'pod.json');
  const hypervisor = createFakeHypervisor({
    clock: systemClock,
    boot: (vm) => {
      const guest = createScriptedGuest(vm);
      guests.set(vm.spec.id, guest);
      rig.onBoot(guest);
    },
    agent: (connection, vm) => void connection.resume().write(vm.spec.id),
    fault: (step, vmId) => rig.fault(step, vmId),
  });
  const rig: Rig = {
    directory,
    hypervisor,
    network: createFakeNetwork({ random }),
    images: createFakeImages(),
    clock: systemClock,
    fault: () => undefined,
    onBoot: () => {},
    async start(process) {
      const part = <T extends object>(name: string, whole: T): T =>
        process ? process.part(name, whole) : whole;
      const daemon = await startDaemon({
        directory,
        version: 'test',
        hypervisor: part('hypervisor', hypervisor),
        images: part('images', rig.images),
        network: part('network', rig.network),
        connectAgent: async (connection: Duplex, options: AgentOptions) => {
          void process?.died.then(() => connection.destroy());
          const [id] = (await once(connection, 'data')) as [Buffer];
          return part('agent', rig.guest(id.toString()).open(connection, options));
        },
        clock: process ? process.clock(rig.clock) : rig.clock,
        random,
        log: silentLog,
        kernels: part('kernels', createFakeKernels(...kernels)),
      });
      if (!process) daemons.push(daemon);
      return daemon;
    },
    guest(podId) {
      const guest = guests.get(podId);
      if (!guest) throw new Error(`pod ${podId} has no guest`);
      return guest;
    },
    async editRecord(podId, edit) {
      const record = JSON.parse(await readFile(recordPath(podId), 'utf8')) as PodRecord;
      edit(record);
      await writeFile(recordPath(podId), JSON.stringify(record));
    },
    async podDirectories() {
      const names = ['pods', 'vms'].map((name) => readdir(join(directory, name)));
      return (await Promise.all(names)).flat();
    },
    async [Symbol.asyncDispose]() {
      for (const daemon of daemons) await daemon.close();
      await rm(directory, { recursive: true, force: true });
    },
  };
  return rig;
}

function createFakeImages(): FakeImages {
  const config = {
    architecture: 'amd64',
    user: '',
    env: [],
    entrypoint: [],
    command: ['sh'],
    workingDir: '/',
    exposedPorts: [],
    volumes: [],
    stopSignal: '',
    labels: {},
  };
  const references = ['localhost/test:1'];
  const size = { diskBytes: 4096, usedBy: [] };
  const image: Image = { id: IMAGE_ID, digest: IMAGE_ID, references, ...size, config };
  const present = new Map([[IMAGE_ID, image]]);
  let leases: ImageLease[] = [];
  const release = async (imageId: string, owner: string) => {
    leases = leases.filter((lease) => lease.imageId !== imageId || lease.owner !== owner);
  };
  const find = (name: string) =>
    [...present.values()].find(({ id, references: all }) => id === name || all.includes(name));
  return {
    present,
    async pull({ reference }) {
      const found = find(reference);
      if (found) return found;
      throw new ImageError('NotFound', `image "${reference}": not found`);
    },
    async push({ reference }) {
      const found = find(reference);
      if (found) return found;
      throw new ImageError('NotFound', `image "${reference}": not found`);
    },
    async load({ archive }) {
      for await (const _ of archive);
      return [...present.values()];
    },
    async save(names) {
      for (const name of names) {
        if (!find(name)) throw new ImageError('NotFound', `image "${name}": not found`);
      }
      return Readable.from([Buffer.from(names.join())]);
    },
    get: find,
    mayUse: () => true,
    list: () => [...present.values()],
    async remove(reference) {
      const found = find(reference);
      if (!found) throw new ImageError('NotFound', `image "${reference}": not found`);
      present.delete(found.id);
    },
    async acquire(imageId, owner) {
      if (!present.has(imageId)) throw new ImageError('NotFound', `image "${imageId}": not found`);
      await release(imageId, owner);
      leases.push({ imageId, owner });
      return `/images/${imageId}`;
    },
    release,
    leases: () => leases,
    forget: async () => {},
    close: async () => {},
  };
}

export function podSpec(id: string, overrides: Partial<HyperPodSpec> = {}): HyperPodSpec {
  return {
    id,
    namespace: 'default',
    name: id,
    hostname: id,
    domain: '',
    cpuCount: 1,
    memoryMib: 128,
    limits: { cpuMillis: 0, cpuWeightMillis: 100, memoryMib: 256 },
    scratchMib: 16,
    network: { id: 'default', cidr: '10.88.0.0/24', gateway: '10.88.0.1', mtu: 1500, nat: true },
    dns: { nameservers: [], searches: [], options: [] },
    hostAliases: [],
    sysctls: {},
    shareProcessNamespace: false,
    volumes: [],
    labels: {},
    ...overrides,
  };
}

export function containerSpec(
  id: string,
  overrides: Partial<HyperContainerSpec> = {},
): HyperContainerSpec {
  return {
    id,
    name: id,
    attempt: 0,
    imageId: IMAGE_ID,
    process: processSpec(['sh']),
    stopSignal: 'TERM',
    readOnlyRootfs: false,
    mounts: [],
    resources: { cpuMillis: 0, cpuWeightMillis: 100, memoryBytes: 0 },
    terminationMessagePath: '/dev/termination-log',
    terminationMessageFromLog: false,
    stdin: false,
    stdinOnce: false,
    labels: {},
    ...overrides,
  };
}

/** Follows the daemon's events until a pod is as wanted. */
export async function podUntil(
  daemon: Daemon,
  id: string,
  done: (state: PodState) => boolean,
): Promise<PodState> {
  const limit = AbortSignal.timeout(10_000);
  const events = daemon.events.subscribe(undefined, limit);
  const state = () => daemon.pods().find((pod) => pod.id === id);
  let current = state();
  if (current && done(current)) return current;
  for await (const event of events) {
    if (event.pod !== id) continue;
    current = state();
    if (current && done(current)) return current;
  }
  throw new Error(`pod ${id} did not come to what was waited for: ${JSON.stringify(current)}`);
}

export const isRunning = (pod: PodState): boolean => pod.phase === 'running';
export const isStopped = (pod: PodState): boolean => pod.phase === 'stopped';

/** A pod that runs, with one container `<id>-c` in it. */
export async function runningPod(
  daemon: Daemon,
  id: string,
  overrides: Partial<HyperContainerSpec> = {},
): Promise<ContainerState> {
  await daemon.createPod(podSpec(id));
  await podUntil(daemon, id, isRunning);
  return daemon.pod(id).startContainer(containerSpec(`${id}-c`, overrides));
}

export async function logText(daemon: Daemon, podId: string, id: string): Promise<string> {
  const { signal } = new AbortController();
  const streams = new Set<1 | 2>([1, 2]);
  const options = { follow: false, tailLines: undefined, sinceMs: 0, streams, signal };
  let text = '';
  for await (const record of decodeLogRecords(daemon.pod(podId).container(id).log.read(options))) {
    text += Buffer.from(record.bytes).toString();
  }
  return text;
}
