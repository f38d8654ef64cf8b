import { mkdir, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type {
  ContainerState,
  HyperContainerSpec,
  HyperPodSpec,
  PodPhase,
  PodState,
  PodTimings,
} from '../../api/hyperd.ts';
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
  /** Host user id of the VM. */
  uid: number;
  phase: PodPhase;
  reason: PodState['reason'];
  message: string;
  guest: PodState['guest'];
  timings: PodTimings;
  port: Port | null;
  containers: ContainerRecord[];
}

export interface ContainerRecord {
  spec: HyperContainerSpec;
  state: ContainerState;
}

const RECORD_VERSION = 1;

/** @param uid host user id that the VM runs as */
export function newPodRecord(spec: HyperPodSpec, uid: number, requestedMs: number): PodRecord {
  return {
    version: RECORD_VERSION,
    spec,
    uid,
    phase: 'creating',
    reason: '',
    message: '',
    guest: null,
    timings: { requested: requestedMs },
    port: null,
    containers: [],
  };
}

/** The paths of one pod; everything of a pod on this host lies beneath `root`. */
export interface PodPaths {
  root: string;
  record: string;
  vm: string;
  scratch: string;
  logs(containerId: string): string;
}

/** Where everything of one pod lies. */
export function podPaths(podsDirectory: string, id: string): PodPaths {
  const root = join(podsDirectory, id);
  return {
    root,
    record: join(root, 'pod.json'),
    vm: join(root, 'vm'),
    scratch: join(root, 'scratch.ext4'),
    logs: (containerId) => join(root, 'logs', containerId),
  };
}

/**
 * Replaces the file at once: a reader sees the old record or the new one. The pod's directory is
 * made where it is missing, but not what it lies in: a data directory that was deleted stays so.
 */
export async function savePodRecord(paths: PodPaths, record: PodRecord): Promise<void> {
  await mkdir(paths.root, { mode: 0o711 }).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'EEXIST') throw error;
  });
  await writeFileAtomic(paths.record, JSON.stringify(record));
}

/**
 * The records of an earlier daemon. A directory without a readable record is of a pod whose
 * creation was never acknowledged, and is removed with what runs in it.
 */
export async function loadPodRecords(
  podsDirectory: string,
  endVm: (vmDirectory: string) => Promise<void>,
  log: Log,
): Promise<PodRecord[]> {
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
    await endVm(paths.vm);
    await rm(paths.root, { recursive: true, force: true });
  }
  return records;
}

function parseRecord(text: string, id: string, log: Log): PodRecord | undefined {
  try {
    const record = JSON.parse(text) as PodRecord;
    if (record.version === RECORD_VERSION && record.spec.id === id) return record;
    log.error('pod record of another version', { pod: id, version: record.version });
  } catch (error) {
    log.error('pod record cannot be read', { pod: id, error: describeError(error) });
  }
  return undefined;
}

/** The record as clients see it. */
export function toPodState(record: PodRecord): PodState {
  return {
    id: record.spec.id,
    namespace: record.spec.namespace,
    name: record.spec.name,
    phase: record.phase,
    labels: record.spec.labels,
    spec: record.spec,
    address: record.port?.address.split('/')[0] ?? '',
    reason: record.reason,
    message: record.message,
    guest: record.guest,
    timings: record.timings,
    containers: record.containers.map((container) => container.state),
  };
}
