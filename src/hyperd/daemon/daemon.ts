import { readdir, rm, statfs } from 'node:fs/promises';
import { cpus, totalmem } from 'node:os';
import { join } from 'node:path';
import type {
  CreatePod,
  HyperPodSpec,
  HyperdInfo,
  ImageStatus,
  KernelStatus,
  PodDefaults,
  PodState,
  PoolStatus,
  PullImage,
  PushImage,
  TemplateStatus,
  VmStatus,
} from '../../api/hyperd.ts';
import { StatusError, alreadyExists, conflict, notFound } from '../../api/status.ts';
import type { Clock, Timer } from '../../base/clock.ts';
import { describeError } from '../../base/log.ts';
import { KernelError } from '../guestkernel/store.ts';
import type { Kernel } from '../guestkernel/store.ts';
import { ImageError } from '../image/store.ts';
import type { Image, LoadRequest, TellProgress } from '../image/store.ts';
import { openSupply } from '../supply/index.ts';
import { renderSupplyMetrics } from '../supply/metrics.ts';
import type { SupplyOptions } from '../supply/index.ts';
import { vmPaths } from '../supply/paths.ts';
import { createUids } from '../supply/uids.ts';
import type { HypervisorInfo } from '../vmm/hypervisor.ts';
import { requireCapability } from '../vmm/validate.ts';
import { createEventHub } from './events.ts';
import type { EventHub } from './events.ts';
import { adoptPod, createPod } from './pod.ts';
import type { Pod, PodDependencies } from './pod-interface.ts';
import { loadPodRecords, newContainerRecord, newPodRecord } from './record.ts';
import type { PodRecord } from './record.ts';
import { createRestarter } from './restart.ts';
import { watchWallClock } from './wall-clock.ts';

/**
 * hyperd without its HTTP door: pods by id, images, and the truth about what this host holds. It
 * can be killed at any time; the next one takes over from the records and the VMs it finds.
 */
export interface Daemon {
  readonly version: string;
  info(): Promise<HyperdInfo>;
  readonly events: EventHub;
  pods(): PodState[];
  pod(id: string): Pod;
  /** Idempotent: the same id returns the pod that is there, which may have ended meanwhile. */
  createPod(spec: HyperPodSpec): Promise<PodState>;
  /**
   * A new pod with its containers, which are started in their order when it is, now or later.
   * @throws StatusError AlreadyExists
   */
  createNewPod(request: CreatePod): Promise<PodState>;
  /**
   * Gives a pod that was never started, or has ended, a VM; its containers get a further attempt.
   * @throws StatusError Conflict where it runs
   */
  startPod(id: string): Promise<PodState>;
  removePod(id: string): Promise<void>;
  /**
   * From now on no pod is created or started, as in a daemon that is closed; the others are removed.
   * @returns ids of those that are still there, with the reason
   */
  removeAllPods(): Promise<Map<string, unknown>>;
  /** @throws ImageError, as `removeImage` */
  pullImage(request: PullImage, signal: AbortSignal, tell?: TellProgress): Promise<ImageStatus>;
  /** @throws ImageError */
  pushImage(request: PushImage, signal: AbortSignal, tell?: TellProgress): Promise<ImageStatus>;
  /** @throws ImageError */
  loadImages(request: LoadRequest, signal: AbortSignal): Promise<ImageStatus[]>;
  /** @throws ImageError NotFound before the first byte */
  saveImages(names: string[], signal: AbortSignal): Promise<AsyncIterable<Uint8Array>>;
  images(): ImageStatus[];
  removeImage(reference: string): Promise<void>;
  kernels(): Promise<KernelStatus[]>;
  templates(): Promise<TemplateStatus[]>;
  /** @throws StatusError NotFound */
  removeTemplate(id: string): Promise<void>;
  pools(): PoolStatus[];
  limitPool(owner: string, memoryMib: number | undefined): void;
  /**
   * Removes what there is of an owner beside its pods: templates, VMs that wait, images that nobody
   * else has run. @throws StatusError Conflict while it has pods
   */
  removeOwner(owner: string): Promise<void>;
  /** In Prometheus' text format. */
  metrics(): string;
  /** Of pods, and those that wait for one. */
  vms(): Promise<VmStatus[]>;
  /** Lets go of everything; VMs run on. */
  close(): Promise<void>;
}

type Own = 'onChange' | 'onDone' | 'podsDirectory' | 'vmsDirectory' | 'supply' | 'uids';

export interface DaemonOptions
  extends Omit<PodDependencies, Own>, Pick<SupplyOptions, 'rehearsalProgramPath' | 'policy'> {
  directory: string;
  version: string;
  /** Asked each time: resolvers change. @default no network, no resolvers */
  podDefaults?: () => Promise<PodDefaults>;
}

const NO_DEFAULTS: PodDefaults = {
  network: null,
  dns: { nameservers: [], searches: [], options: [] },
};

/** hyperd's, not the scheduler's, limit: what one daemon has been tried with. */
const PODS_MAX = 1000;
/** Host CPU that the emulator's own threads take, in thousandths, for schedulers to count. */
const OVERHEAD_CPU_MILLIS = 50;
const REMOVE_RETRY_MS = 5_000;

/**
 * @throws HypervisorError Unsupported where disks cannot come to a VM that runs: containers, and with
 *   them images, are made after it
 */
export async function startDaemon(options: DaemonOptions): Promise<Daemon> {
  requireCapability(options.hypervisor, 'disk-hotplug');
  const podsDirectory = join(options.directory, 'pods');
  const events = createEventHub();
  const pods = new Map<string, Pod>();
  const uids = createUids(options.random);
  const instance = options.random.uuid();
  const vmsDirectory = join(options.directory, 'vms');
  const records = await loadPodRecords(podsDirectory, options.log);
  for (const { uid } of records) uids.keep(uid);
  await removeOrphans(options, vmsDirectory, records);
  const supply = await openSupply({ ...options, vmsDirectory, uids });
  const dependencies: PodDependencies = {
    ...options,
    ...{ podsDirectory, vmsDirectory, supply, uids },
    onChange: (pod, container) =>
      events.emit(container ? { type: 'container', pod, container } : { type: 'pod', pod }),
    onDone: (id) => void remove(id).catch(() => {}),
  };
  let hypervisorInfo: Promise<HypervisorInfo> | undefined;
  const probe = () => {
    hypervisorInfo ??= options.hypervisor.probe().catch((error) => {
      hypervisorInfo = undefined;
      throw error;
    });
    return hypervisorInfo;
  };
  // It takes a while, and the first who asks is a node that wants to be Ready.
  void probe().catch(() => {});

  const retries = new Set<Timer>();
  const restarter = createRestarter(pods, dependencies);
  const remove = async (id: string): Promise<void> => {
    // No await where there is nothing to wait for: from the call on the pod is being removed.
    const settled = restarter.settled(id);
    if (settled) await settled;
    const pod = pods.get(id);
    if (!pod) return;
    await pod.remove().catch((error) => {
      removeLater(id, error);
      throw error;
    });
    // Who waited for the same removal has done this, and another pod may have the id by now.
    if (pods.get(id) !== pod) return;
    pods.delete(id);
    events.emit({ type: 'pod', pod: id });
  };
  /** What was begun is finished, also when the client does not ask again. */
  const removeLater = (id: string, error: unknown) => {
    options.log.error('pod cannot be removed yet', { pod: id, error: describeError(error) });
    const timer = options.clock.after(REMOVE_RETRY_MS, () => {
      retries.delete(timer);
      remove(id).catch(() => {});
    });
    retries.add(timer);
  };
  let isEnding = false;
  const assertGoingOn = () => {
    if (isEnding) throw new StatusError('ServiceUnavailable', 'hyperd is ending');
  };
  const add = async (request: CreatePod): Promise<Pod> => {
    assertGoingOn();
    const { spec, containers, start } = request;
    if (pods.size >= PODS_MAX) {
      throw new StatusError('TooManyRequests', `Cannot create pod: ${PODS_MAX} are here already`);
    }
    const nowMs = options.clock.nowMs();
    const record = newPodRecord(spec, uids.draw(), nowMs);
    record.containers = containers.map((container) => newContainerRecord(container, nowMs));
    if (!start) record.phase = 'created';
    const pod = createPod(record, dependencies);
    // No await before this: a second request for the same id must find the pod.
    pods.set(spec.id, pod);
    await pod.recorded();
    events.emit({ type: 'pod', pod: spec.id });
    return pod;
  };
  const adopted = records.map(async (record) => {
    pods.set(record.spec.id, await adoptPod(record, dependencies));
  });
  await Promise.all(adopted);
  for (const { spec, phase } of records) {
    if (phase === 'deleting') remove(spec.id).catch(() => {});
  }
  const wallClock = watchWallClock(options.clock, (jumpMs) => {
    options.log.warn("the host's clock was set: guests get its time", { jumpMs });
    for (const pod of pods.values()) void tellTime(pod, options.clock);
  });
  return {
    version: options.version,
    events,
    async info() {
      const hypervisor = await probe();
      const disk = await statfs(options.directory);
      return {
        version: options.version,
        instance,
        hypervisor: options.hypervisor.name,
        accelerator: hypervisor.accelerator,
        acceleratorReason: hypervisor.acceleratorReason,
        kernelVersion: (await options.kernels.default()).release,
        overhead: { memoryMib: hypervisor.overheadMemoryMib, cpuMillis: OVERHEAD_CPU_MILLIS },
        machine: {
          cpuCount: cpus().length,
          memoryBytes: totalmem(),
          diskBytes: disk.blocks * disk.bsize,
        },
        podCount: pods.size,
        defaults: (await options.podDefaults?.()) ?? NO_DEFAULTS,
      };
    },
    pods: () => [...pods.values()].map((pod) => pod.state()),
    pod(id) {
      const pod = pods.get(id);
      if (!pod) throw notFound('', 'pods', id);
      return pod;
    },
    async createPod(spec) {
      // What has no such kernel cannot begin; a pod that is there already has what it needs.
      if (!pods.has(spec.id)) await requireKernel(options.kernels, spec.kernel);
      const existing = pods.get(spec.id);
      if (existing) return existing.state();
      return (await add({ spec, containers: [], start: true })).state();
    },
    async createNewPod(request) {
      const { id, kernel } = request.spec;
      await requireKernel(options.kernels, kernel);
      if (pods.has(id)) throw alreadyExists('', 'pods', id);
      return (await add(request)).state();
    },
    async startPod(id) {
      assertGoingOn();
      return restarter.start(id);
    },
    removePod: remove,
    async removeAllPods() {
      isEnding = true;
      const left = new Map<string, unknown>();
      const removed = [...pods.keys()].map((id) =>
        remove(id).catch((error) => left.set(id, error)),
      );
      await Promise.all(removed);
      return left;
    },
    async pullImage(request, signal, tell) {
      const present = options.images.get(request.reference);
      const isUsable = present && request.policy !== 'always' && options.images.mayUse(request);
      if (isUsable) return toImageStatus(present);
      if (request.policy === 'never') {
        const state = 'is not present and may not be pulled';
        throw new ImageError('NotFound', `Image "${request.reference}" ${state}`);
      }
      try {
        const { reference, credentials } = request;
        return toImageStatus(await options.images.pull({ reference, credentials }, signal, tell));
      } finally {
        events.emit({ type: 'image', pod: '' });
      }
    },
    pushImage: async (request, signal, tell) =>
      toImageStatus(await options.images.push(request, signal, tell)),
    async loadImages(request, signal) {
      try {
        return (await options.images.load(request, signal)).map(toImageStatus);
      } finally {
        events.emit({ type: 'image', pod: '' });
      }
    },
    saveImages: (names, signal) => options.images.save(names, signal),
    images: () => options.images.list().map(toImageStatus),
    removeImage: (reference) => options.images.remove(reference),
    kernels: async () => (await options.kernels.list()).map(toKernelStatus),
    async templates() {
      const kernels = await options.kernels.list();
      return supply.templates().map(({ kernelPath, ...template }) => {
        const kernel = kernels.find((each) => each.kernelPath === kernelPath)?.release ?? '';
        return { ...template, kernel };
      });
    },
    async removeTemplate(id) {
      const isKnown = supply.templates().some((template) => template.id === id);
      if (!isKnown) throw notFound('', 'templates', id);
      await supply.removeTemplate(id);
    },
    pools: () => supply.pools(),
    limitPool: (owner, memoryMib) => supply.limitPool(owner, memoryMib),
    async removeOwner(owner) {
      const all = [...pods.values()].map((pod) => pod.state().spec);
      const [first, ...others] = all.filter((spec) => spec.owner === owner).map(({ id }) => id);
      if (first !== undefined) {
        const more = others.length > 0 ? ` and ${others.length} more` : '';
        throw conflict('', 'owners', owner, `pod "${first}"${more} has to be removed first`);
      }
      await supply.forget(owner);
      await options.images.forget(owner);
    },
    metrics: () => renderSupplyMetrics(supply),
    async vms() {
      const ofPods = await Promise.all([...pods.values()].map((pod) => pod.vmStatus()));
      return [...ofPods.filter((vm) => vm !== undefined), ...(await supply.idleVms())];
    },
    async close() {
      isEnding = true;
      wallClock.close();
      for (const timer of retries) timer.cancel();
      await supply.close();
      await Promise.all([...pods.values()].map((pod) => pod.release()));
      await removeUnusedNetworks(options);
      await options.images.close();
      await options.hypervisor.close();
    },
  };
}

/** A pod that is paused, or has no guest yet, gets the time when it has one that goes on. */
async function tellTime(pod: Pod, clock: Clock): Promise<void> {
  const { phase, paused } = pod.record;
  if (phase !== 'running' || paused) return;
  // Who does not answer is dealt with by the session.
  await pod.agent((agent) => agent.setClock(clock.nowMs())).catch(() => {});
}

/** @throws StatusError Invalid */
async function requireKernel(kernels: DaemonOptions['kernels'], name?: string): Promise<void> {
  if (name === undefined) return;
  await kernels.get(name).catch((error: unknown) => {
    if (error instanceof KernelError) throw new StatusError('Invalid', error.message);
    throw error;
  });
}

/**
 * VMs, ports and pinned images that are no pod's: the daemon died between making the one and
 * recording the other, or with VMs that waited for pods.
 */
async function removeOrphans(
  { network, images, hypervisor, log }: DaemonOptions,
  vmsDirectory: string,
  records: PodRecord[],
): Promise<void> {
  const report = (what: string, id: string) => (error: unknown) =>
    log.error(`${what} of no pod cannot be removed`, { id, error: describeError(error) });
  const pods = new Set(records.map(({ spec }) => spec.id));
  const vms = new Set(records.map(({ vmId }) => vmId));
  for (const id of await readdir(vmsDirectory).catch(() => [])) {
    if (vms.has(id)) continue;
    const { root, vm } = vmPaths(vmsDirectory, id);
    const gone = hypervisor.destroy(vm).then(() => rm(root, { recursive: true, force: true }));
    await gone.catch(report('VM', id));
  }
  const { ports } = await network.list();
  for (const { id } of ports) {
    if (!vms.has(id)) await network.deletePort(id).catch(report('port', id));
  }
  for (const { imageId, owner } of images.leases()) {
    if (!pods.has(owner)) await images.release(imageId, owner).catch(report('image', owner));
  }
}

/** Networks without pods; what their pods still use stays. */
async function removeUnusedNetworks({ network, log }: DaemonOptions): Promise<void> {
  const { networks, ports } = await network.list();
  const used = new Set(ports.map((port) => port.networkId));
  for (const { id } of networks) {
    if (used.has(id)) continue;
    await network.deleteNetwork(id).catch((error: unknown) => {
      log.error('network cannot be removed', { network: id, error: describeError(error) });
    });
  }
}

function toImageStatus(image: Image): ImageStatus {
  const { id, digest, references, diskBytes, usedBy, config } = image;
  return { id, digest, references, diskBytes, usedBy, config };
}

function toKernelStatus(kernel: Kernel): KernelStatus {
  const { id, names, release, origin, bytes, isDefault, isBuiltIn } = kernel;
  return { id, names, release, origin, bytes, isDefault, isBuiltIn };
}
