import { mkdir, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type {
  ContainerState,
  HyperContainerSpec,
  HyperPodSpec,
  PodPhase,
  PodState,
  PodTimings,
  PortState,
} from '../../api/hyperd.ts';
import { StatusError } from '../../api/status.ts';
import type { Log } from '../../base/log.ts';
import { describeError } from '../../base/log.ts';
import { readFileIfExists, removeTemporaries, writeFileAtomic } from '../../base/files.ts';
import type { Port } from '../../network/driver.ts';

/**
 * What hyperd remembers of a pod, in `pods/<id>/pod.json`. The file is replaced at each change
 * before the change is told to anybody, so a restarted daemon goes on where this one ended.
 * Survival of the host's own crash is not asked for: the VMs do not survive it either.
 */
export interface PodRecord {
  version: typeof RECORD_VERSION;
  spec: HyperPodSpec;
  /**
   * The VM, its directory and its network port. The pod's own id where it was made for the pod;
   * another where it waited for one.
   */
  vmId: string;
  /** Host user id of the VM. */
  uid: number;
  /** How it came to its VM; empty before. */
  origin: PodState['origin'];
  phase: PodPhase;
  /** Whether its VM is to be held. */
  paused: boolean;
  reason: PodState['reason'];
  message: string;
  guest: PodState['guest'];
  timings: PodTimings;
  port: Port | null;
  /** Ports of this machine, as they were got. */
  ports: PortState[];
  containers: ContainerRecord[];
}

export interface ContainerRecord {
  spec: HyperContainerSpec;
  state: ContainerState;
}

const RECORD_VERSION = 2;

/** @param uid host user id that the VM runs as */
export function newPodRecord(spec: HyperPodSpec, uid: number, requestedMs: number): PodRecord {
  return {
    version: RECORD_VERSION,
    spec,
    vmId: spec.id,
    uid,
    origin: '',
    phase: 'creating',
    paused: false,
    reason: '',
    message: '',
    guest: null,
    timings: { requested: requestedMs },
    port: null,
    ports: [],
    containers: [],
  };
}

/**
 * Makes the record of a pod that has ended, or was never started, that of one which is to start.
 * Its containers get a further attempt each; of those before, the last one is remembered. It still
 * names the VM that it had, for what is left of that to be discarded.
 *
 * @returns ids of containers that are forgotten
 */
export function renewPodRecord(record: PodRecord, nowMs: number): string[] {
  const { spec, vmId, uid, containers } = record;
  const latest = new Map(containers.map((container) => [container.spec.name, container]));
  const taken = new Set(containers.map((container) => container.spec.id));
  const kept = [...latest.values()].flatMap((last) => {
    if (last.state.phase !== 'exited') return [last];
    return [last, newContainerRecord(nextAttempt(last.spec, taken), nowMs)];
  });
  Object.assign(record, newPodRecord(spec, uid, nowMs), { vmId, containers: kept });
  for (const { spec: known } of kept) taken.delete(known.id);
  return [...taken];
}

/** Leaves room for the number of an attempt within what an id may have. */
const ID_STEM_CHARS_MAX = 54;

function nextAttempt(spec: HyperContainerSpec, taken: ReadonlySet<string>): HyperContainerSpec {
  const stem = spec.id.replace(/--\d+$/, '').slice(0, ID_STEM_CHARS_MAX);
  for (let attempt = spec.attempt + 1; ; attempt++) {
    const id = `${stem}--${attempt}`;
    if (!taken.has(id)) return { ...spec, attempt, id };
  }
}

/** Of a container that is yet to be started. */
export function newContainerRecord(spec: HyperContainerSpec, createdAtMs: number): ContainerRecord {
  return {
    spec,
    state: {
      id: spec.id,
      name: spec.name,
      attempt: spec.attempt,
      imageId: spec.imageId,
      phase: 'creating',
      createdAtMs,
      startedAtMs: 0,
      firstByteAtMs: 0,
      exit: null,
      labels: spec.labels,
    },
  };
}

/** The paths of one pod; all of it on this host but its VM lies beneath `root`. */
export interface PodPaths {
  root: string;
  record: string;
  logs(containerId: string): string;
}

/** Where everything of one pod lies. */
export function podPaths(podsDirectory: string, id: string): PodPaths {
  const root = join(podsDirectory, id);
  return {
    root,
    record: join(root, 'pod.json'),
    logs: (containerId) => join(root, 'logs', containerId),
  };
}

/** Where it is missing, but not what it lies in: a data directory that was deleted stays so. */
export async function makePodDirectory(paths: PodPaths): Promise<void> {
  await mkdir(paths.root, { mode: 0o711 }).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'EEXIST') throw error;
  });
}

/**
 * What the record says at the call. Replaces the file at once: a reader sees the old record or the
 * new one.
 */
export async function savePodRecord(paths: PodPaths, record: PodRecord): Promise<void> {
  await writeFileAtomic(paths.record, JSON.stringify(record));
}

/**
 * The records of an earlier daemon. A directory without a readable record is of a pod whose
 * creation was never acknowledged, and is removed.
 */
export async function loadPodRecords(podsDirectory: string, log: Log): Promise<PodRecord[]> {
  await mkdir(podsDirectory, { recursive: true, mode: 0o711 });
  const records: PodRecord[] = [];
  for (const id of await readdir(podsDirectory)) {
    const paths = podPaths(podsDirectory, id);
    const text = await readFileIfExists(paths.record);
    const record = text === undefined ? undefined : parseRecord(text, id, log);
    if (record) {
      await removeTemporaries(paths.root);
      records.push(record);
      continue;
    }
    await rm(paths.root, { recursive: true, force: true });
  }
  return records;
}

function parseRecord(text: string, id: string, log: Log): PodRecord | undefined {
  try {
    const record = JSON.parse(text) as PodRecord;
    // Earlier daemons knew neither.
    const whole = { ...record, paused: record.paused ?? false, ports: record.ports ?? [] };
    if (record.version === RECORD_VERSION && record.spec.id === id) return whole;
    log.error('pod record of another version', { pod: id, version: record.version });
  } catch (error) {
    log.error('pod record cannot be read', { pod: id, error: describeError(error) });
  }
  return undefined;
}

/** Whether it has a VM, or is about to. */
export function isLive({ phase }: PodRecord): boolean {
  return phase === 'creating' || phase === 'running';
}

/** Whether it had containers and none of them runs any more. */
export function hasEnded({ containers }: PodRecord): boolean {
  return containers.length > 0 && containers.every(({ state }) => state.phase === 'exited');
}

/** What somebody is told who wants to start a pod that is on its way, or on its way out. */
export function startConflict({ spec, phase }: PodRecord): StatusError {
  return new StatusError('Conflict', `Cannot start pod "${spec.id}": it is ${phase} already`);
}

/** The record as clients see it. */
export function toPodState(record: PodRecord): PodState {
  return {
    id: record.spec.id,
    namespace: record.spec.namespace,
    name: record.spec.name,
    phase: record.phase,
    paused: record.paused,
    labels: record.spec.labels,
    spec: record.spec,
    address: record.port?.address.split('/')[0] ?? '',
    origin: record.origin,
    ports: record.ports,
    reason: record.reason,
    message: record.message,
    guest: record.guest,
    timings: record.timings,
    containers: record.containers.map((container) => container.state),
  };
}
