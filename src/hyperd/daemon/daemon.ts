import { statfs } from 'node:fs/promises';
import { cpus, totalmem } from 'node:os';
import { join } from 'node:path';
import type { HyperPodSpec, HyperdInfo, ImageStatus, PodState, PullImage } from '../../api/hyperd.ts';
import { StatusError, notFound } from '../../api/status.ts';
import { describeError } from '../../base/log.ts';
import { ImageError } from '../image/store.ts';
import type { Image, ImageErrorReason } from '../image/store.ts';
import type { HypervisorInfo } from '../vmm/hypervisor.ts';
import { createEventHub } from './events.ts';
import type { EventHub } from './events.ts';
import { adoptPod, createPod } from './pod.ts';
import type { Pod, PodDependencies } from './pod.ts';
import { loadPodRecords, newPodRecord } from './record.ts';
import { drawUid } from './uids.ts';

/**
 * hyperd without its HTTP door: pods by id, images, and the truth about what this host holds. It
 * can be killed at any time; the next one takes over from the records and the VMs it finds.
 */
export interface Daemon {
  info(): Promise<HyperdInfo>;
  readonly events: EventHub;
  pods(): PodState[];
  pod(id: string): Pod;
  /** Idempotent: the same id returns the pod that is there, which may have ended meanwhile. */
  createPod(spec: HyperPodSpec): Promise<PodState>;
  removePod(id: string): Promise<void>;
  pullImage(request: PullImage, signal: AbortSignal): Promise<ImageStatus>;
  images(): ImageStatus[];
  removeImage(reference: string): Promise<void>;
  /** Lets go of everything; VMs run on. */
  close(): Promise<void>;
}

export interface DaemonOptions extends Omit<PodDependencies, 'onChange' | 'podsDirectory'> {
  directory: string;
  version: string;
  kernelVersion: string;
}

/** hyperd's, not the scheduler's, limit: what one daemon has been tried with. */
const PODS_MAX = 1000;
/** Host CPU that the emulator's own threads take, in thousandths, for schedulers to count. */
const OVERHEAD_CPU_MILLIS = 50;

const IMAGE_ERROR_STATUS: Record<ImageErrorReason, string> = {
  InvalidReference: 'BadRequest',
  NotFound: 'NotFound',
  Unauthorized: 'Forbidden',
  DigestMismatch: 'Invalid',
  WrongPlatform: 'Invalid',
  Malformed: 'Invalid',
  TooLarge: 'RequestEntityTooLarge',
  Unreachable: 'ServiceUnavailable',
  InUse: 'Conflict',
  NoSpace: 'InternalError',
};

export async function startDaemon(options: DaemonOptions): Promise<Daemon> {
  const podsDirectory = join(options.directory, 'pods');
  const events = createEventHub();
  const pods = new Map<string, Pod>();
  const uids = new Map<string, number>();
  const instance = options.random.uuid();
  const dependencies: PodDependencies = {
    ...options,
    podsDirectory,
    onChange: (pod, container) =>
      events.emit(container ? { type: 'container', pod, container } : { type: 'pod', pod }),
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

  const remove = async (id: string): Promise<void> => {
    const pod = pods.get(id);
    if (!pod) return;
    await pod.remove();
    pods.delete(id);
    uids.delete(id);
    events.emit({ type: 'pod', pod: id });
  };

  for (const record of await loadPodRecords(podsDirectory, options.log)) {
    uids.set(record.spec.id, record.uid);
    const pod = adoptPod(record, dependencies);
    pods.set(record.spec.id, pod);
    if (record.phase === 'deleting') {
      void remove(record.spec.id).catch((error) => reportLeftover(record.spec.id, error));
    }
  }
  function reportLeftover(id: string, error: unknown): void {
    options.log.error('pod cannot be removed', { pod: id, error: describeError(error) });
  }
  await removeOrphanedPorts(options, pods);

  return {
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
        kernelVersion: options.kernelVersion,
        overhead: { memoryMib: hypervisor.overheadMemoryMib, cpuMillis: OVERHEAD_CPU_MILLIS },
        machine: {
          cpuCount: cpus().length,
          memoryBytes: totalmem(),
          diskBytes: disk.blocks * disk.bsize,
        },
        podCount: pods.size,
      };
    },
    pods: () => [...pods.values()].map((pod) => pod.state()),
    pod(id) {
      const pod = pods.get(id);
      if (!pod) throw notFound('', 'pods', id);
      return pod;
    },
    async createPod(spec) {
      const existing = pods.get(spec.id);
      if (existing) return existing.state();
      if (pods.size >= PODS_MAX) {
        throw new StatusError('TooManyRequests', `Cannot create pod: ${PODS_MAX} are here already`);
      }
      const uid = drawUid(options.random, new Set(uids.values()));
      const record = newPodRecord(spec, uid, options.clock.nowMs());
      const pod = createPod(record, dependencies);
      // No await before this: a second request for the same id must find the pod.
      pods.set(spec.id, pod);
      uids.set(spec.id, uid);
      await pod.recorded();
      events.emit({ type: 'pod', pod: spec.id });
      return pod.state();
    },
    removePod: remove,
    async pullImage(request, signal) {
      const present = options.images.get(request.reference);
      const isUsable = present && request.policy !== 'always' && options.images.mayUse(request);
      if (isUsable) return toImageStatus(present);
      if (request.policy === 'never') {
        throw imageStatusError(
          new ImageError('NotFound', `Image "${request.reference}" is not present and may not be pulled`),
        );
      }
      try {
        const { reference, credentials } = request;
        return toImageStatus(await options.images.pull({ reference, credentials }, signal));
      } catch (error) {
        throw error instanceof ImageError ? imageStatusError(error) : error;
      } finally {
        events.emit({ type: 'image', pod: '' });
      }
    },
    images: () => options.images.list().map(toImageStatus),
    async removeImage(reference) {
      await options.images.remove(reference).catch((error) => {
        throw error instanceof ImageError ? imageStatusError(error) : error;
      });
    },
    async close() {
      await Promise.all([...pods.values()].map((pod) => pod.release()));
      await options.images.close();
    },
  };
}

/** Ports whose pods are gone: the daemon died between making the one and recording the other. */
async function removeOrphanedPorts(options: DaemonOptions, pods: Map<string, Pod>): Promise<void> {
  const { ports } = await options.network.list();
  for (const port of ports) {
    if (!pods.has(port.id)) await options.network.deletePort(port.id);
  }
}

function toImageStatus(image: Image): ImageStatus {
  const { id, digest, references, diskBytes, config } = image;
  return { id, digest, references, diskBytes, config };
}

/** The client finds the image reason in the first cause. */
function imageStatusError(error: ImageError): StatusError {
  const causes = [{ reason: error.reason, message: error.message }];
  return new StatusError(IMAGE_ERROR_STATUS[error.reason], error.message, {
    details: { causes, ...(error.transient ? { retryAfterSeconds: 1 } : {}) },
    cause: error,
  });
}

