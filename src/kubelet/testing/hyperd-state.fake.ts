import type {
  ContainerState,
  HyperContainerSpec,
  HyperPodSpec,
  HyperdEvent,
  HyperdInfo,
  ImageStatus,
  PodResources,
  PodState,
  PoolStatus,
  ProbeResult,
  ProcessExit,
  PullImage,
  TemplateStatus,
  VolumeFiles,
} from '../../api/hyperd.ts';
import { splitIntoRecords } from '../../api/hyperlog.ts';
import type { LogRecord } from '../../api/hyperlog.ts';
import { StatusError, conflict, notFound } from '../../api/status.ts';
import type { Clock } from '../../base/clock.ts';

export interface FakeHyperdOptions {
  clock: Clock;
  /** @default 0 */
  bootMs?: number;
}

const SIGNALS: Record<string, number> = { HUP: 1, INT: 2, QUIT: 3, KILL: 9, USR1: 10, TERM: 15 };
export const INFO: HyperdInfo = {
  version: '0.0.0-fake',
  instance: 'fake',
  hypervisor: 'fake',
  accelerator: 'fake',
  acceleratorReason: '',
  kernelVersion: '6.1.0-fake',
  overhead: { memoryMib: 32, cpuMillis: 50 },
  defaults: { network: null, dns: { nameservers: [], searches: [], options: [] } },
  machine: { cpuCount: 4, memoryBytes: 8 * 2 ** 30, diskBytes: 100 * 2 ** 30 },
  podCount: 0,
};

export type FakeHyperdState = ReturnType<typeof createFakeHyperdState>;

/** What a hyperd without VMs would have: its pods, containers, logs and images. */
export function createFakeHyperdState({ clock, bootMs = 0 }: FakeHyperdOptions) {
  const pods = new Map<string, PodState>();
  const specs = new Map<string, HyperContainerSpec>();
  const logs = new Map<string, { records: LogRecord[]; wake: Set<() => void> }>();
  const images: ImageStatus[] = [];
  const kernels = new Set<string>();
  const listeners = new Set<(event: HyperdEvent) => void>();
  let sequence = 0;
  let addressCount = 0;

  const emit = (pod: string, container?: string) => {
    sequence += 1;
    const type = container ? 'container' : 'pod';
    const event: HyperdEvent = { sequence, pod, type, ...(container ? { container } : {}) };
    for (const listener of listeners) listener(event);
  };
  const pod = (id: string): PodState => {
    const found = pods.get(id);
    if (!found) throw notFound('', 'pods', id);
    return found;
  };
  const findContainer = (id: string): { pod: PodState; state: ContainerState } => {
    for (const each of pods.values()) {
      const state = each.containers.find((container) => container.id === id);
      if (state) return { pod: each, state };
    }
    throw notFound('', 'containers', id);
  };
  const end = (id: string, exitCode: number, signal: number, message: string, reason = '') => {
    const { pod: owner, state } = findContainer(id);
    if (state.exit) return;
    const finishedAtMs = clock.nowMs();
    const why = reason || (exitCode === 0 ? 'Completed' : 'Error');
    const exit: ProcessExit = {
      exitCode,
      signal,
      oomKilled: false,
      reason: why,
      message,
      finishedAtMs,
    };
    state.phase = 'exited';
    state.exit = exit;
    for (const wake of logs.get(id)?.wake ?? []) wake();
    emit(owner.id, id);
  };
  const print = (id: string, text: string, stream: 1 | 2 = 1) => {
    const { pod: owner, state } = findContainer(id);
    const log = logs.get(id);
    if (!log) return;
    const first = state.firstByteAtMs === 0;
    if (first) state.firstByteAtMs = clock.nowMs();
    log.records.push(
      ...splitIntoRecords(stream, Buffer.from(text), BigInt(clock.nowMs()) * 1_000_000n),
    );
    for (const wake of log.wake) wake();
    if (first) emit(owner.id, id);
  };
  const run = (spec: HyperContainerSpec) => {
    const [command, ...args] = spec.process.argv;
    if (command === 'exit') end(spec.id, Number(args[0] ?? 0), 0, '');
    if (command === 'print') {
      print(spec.id, `${args.join(' ')}\n`);
      end(spec.id, 0, 0, '');
    }
  };
  return {
    pods,
    specs,
    logs,
    images,
    templates: [] as TemplateStatus[],
    pools: [] as PoolStatus[],
    /** MiB that may wait, by owner; `null` once the limit was taken back. */
    poolLimits: new Map<string, number | null>(),
    kernels,
    onCreatePod: () => {},
    listeners,
    requests: [] as string[],
    volumes: new Map<string, VolumeFiles>(),
    pullErrors: new Map<string, StatusError>(),
    passwords: new Map<string, string>(),
    /** Ids of pods whose guests answer nothing. */
    frozen: new Set<string>(),
    resizeError: undefined as StatusError | undefined,
    probe: (() => ({ success: true, message: '' })) as (pod: string, port: number) => ProbeResult,
    pod,
    end,
    print,
    findContainer,
    addImage(reference: string, config: Partial<ImageStatus['config']> = {}): ImageStatus {
      const hex = Buffer.from(reference).toString('hex').padEnd(64, '0').slice(0, 64);
      const image: ImageStatus = {
        id: `sha256:${hex}`,
        digest: `${reference}@sha256:${hex}`,
        references: [reference],
        diskBytes: 1024,
        usedBy: [],
        config: {
          architecture: 'amd64',
          user: '',
          env: [],
          entrypoint: [],
          command: ['run'],
          workingDir: '',
          exposedPorts: [],
          volumes: [],
          stopSignal: '',
          labels: {},
          ...config,
        },
      };
      images.push(image);
      return image;
    },
    removeOwner(owner: string): void {
      for (const { id, spec } of pods.values()) {
        if (spec.owner === owner) throw conflict('', 'owners', owner, `it has the pod "${id}"`);
      }
      const others = (all: { owner: string }[]) => all.filter((each) => each.owner !== owner);
      this.templates = others(this.templates) as TemplateStatus[];
      this.pools = others(this.pools) as PoolStatus[];
    },
    createPod(spec: HyperPodSpec): PodState {
      const found = pods.get(spec.id);
      if (found) return found;
      if (spec.kernel !== undefined && !kernels.has(spec.kernel)) {
        throw new StatusError('Invalid', `Cannot find kernel "${spec.kernel}"`);
      }
      addressCount += 1;
      const created: PodState = {
        id: spec.id,
        namespace: spec.namespace,
        name: spec.name,
        phase: 'creating',
        labels: spec.labels,
        spec,
        paused: false,
        address: '',
        origin: '',
        ports: [],
        reason: '',
        message: '',
        guest: null,
        timings: { requested: clock.nowMs() },
        containers: [],
      };
      pods.set(spec.id, created);
      const boot = () => {
        if (created.phase !== 'creating') return;
        const nowMs = clock.nowMs();
        Object.assign(created.timings, { network: nowMs, disks: nowMs, vmm: nowMs, guest: nowMs });
        created.phase = 'running';
        created.address = `10.88.0.${addressCount + 1}`;
        created.guest = { kernelVersion: INFO.kernelVersion, bootId: `boot-${addressCount}` };
        emit(spec.id);
      };
      if (bootMs === 0) boot();
      else clock.after(bootMs, boot);
      return created;
    },
    startContainer(podId: string, spec: HyperContainerSpec): ContainerState {
      const owner = pod(podId);
      if (owner.phase !== 'running') {
        throw new StatusError('Conflict', `Pod "${podId}" does not run, it is ${owner.phase}`);
      }
      const found = owner.containers.find((each) => each.id === spec.id);
      if (found) return found;
      const nowMs = clock.nowMs();
      const created: ContainerState = {
        id: spec.id,
        name: spec.name,
        attempt: spec.attempt,
        imageId: spec.imageId,
        phase: 'running',
        createdAtMs: nowMs,
        startedAtMs: nowMs,
        firstByteAtMs: 0,
        exit: null,
        labels: spec.labels,
      };
      specs.set(spec.id, spec);
      logs.set(spec.id, { records: [], wake: new Set() });
      owner.containers.push(created);
      if (spec.process.argv[0] === 'fail') {
        created.startedAtMs = 0;
        end(spec.id, 128, 0, 'executable file not found', 'StartError');
      } else {
        emit(podId, spec.id);
        run(spec);
      }
      return created;
    },
    setResources(podId: string, { limits, containers }: PodResources): PodState {
      const owner = pod(podId);
      if (this.resizeError) throw this.resizeError;
      owner.spec = { ...owner.spec, limits };
      for (const { id, resources, labels } of containers) {
        const { state } = findContainer(id);
        state.labels = { ...state.labels, ...labels };
        specs.set(id, { ...(specs.get(id) as HyperContainerSpec), resources });
      }
      emit(podId);
      return owner;
    },
    signal(id: string, name: string) {
      const number = SIGNALS[name.replace(/^SIG/, '')] ?? 15;
      const isStubborn = specs.get(id)?.process.argv[0] === 'stubborn';
      if (isStubborn && number !== 9) return;
      end(id, 128 + number, number, '');
    },
    deleteContainer(podId: string, id: string) {
      const owner = pod(podId);
      const { state } = findContainer(id);
      if (!state.exit) throw new StatusError('Conflict', `Container "${id}" runs`);
      owner.containers = owner.containers.filter((each) => each.id !== id);
      logs.delete(id);
      emit(podId, id);
    },
    kill(id: string, reason: PodState['reason'], message: string) {
      const target = pod(id);
      target.phase = 'stopped';
      target.reason = reason;
      target.message = message;
      for (const each of target.containers) end(each.id, 137, 9, message);
      emit(id);
    },
    stopPod(id: string): PodState {
      const target = pod(id);
      if (target.phase !== 'stopped') this.kill(id, 'PoweredOff', 'stopped as requested');
      target.address = '';
      return target;
    },
    deletePod(id: string) {
      const target = pods.get(id);
      if (!target) return;
      for (const each of target.containers) {
        end(each.id, 137, 9, '');
        logs.delete(each.id);
      }
      pods.delete(id);
      emit(id);
    },
    pull(request: PullImage): ImageStatus {
      const { reference, policy } = request;
      const password = this.passwords.get(reference);
      const isAllowed =
        password === undefined || request.credentials.some((each) => each.password === password);
      const present = isAllowed && images.find((each) => each.references.includes(reference));
      if (policy !== 'never') {
        const error = this.pullErrors.get(reference);
        if (error && !(present && policy === 'if-not-present')) throw error;
      }
      if (present) return present;
      const causes = [{ reason: 'NotFound', message: 'no such image' }];
      const details = { causes };
      throw new StatusError('NotFound', `Image "${reference}" is not there`, { details });
    },
  };
}
