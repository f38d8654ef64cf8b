import { join } from 'node:path';
import { readFileIfExists } from '../../../base/files.ts';
import { describeError } from '../../../base/log.ts';
import { HypervisorError } from '../hypervisor.ts';
import type { Vm, VmSpec } from '../hypervisor.ts';
import { SOCKET_NAMES, diskId, hotFdset } from './argv.ts';
import { applyLimits, removeCgroups } from './cgroup.ts';
import { withDeadline } from '../deadline.ts';
import type { Host, QemuOptions } from './driver.ts';
import { connectSocket, isAlive, readJailProcesses } from './jail.ts';
import type { JailProcesses } from './jail.ts';
import { QmpError, connectQmp } from './qmp.ts';
import type { QmpClient } from './qmp.ts';
import { createQemuVm } from './vm.ts';
import type { AttachedDisk } from './vm.ts';

/** An emulator on an idle machine takes milliseconds; one whose monitor is held never answers. */
const ADOPT_TIMEOUT_MS = 30_000;

/** Finds a VM again from what lies in its directory. The truth about its disks is QEMU's. */
export async function adoptVm(
  options: QemuOptions,
  host: Host,
  directory: string,
  signal?: AbortSignal,
): Promise<Vm | undefined> {
  const text = await readFileIfExists(join(directory, 'vm.json'));
  if (text === undefined) return undefined;
  const spec = JSON.parse(text) as VmSpec;
  const cleanUp = () => removeCgroups(host.cgroups, spec.id);
  const processes = await readJailProcesses(directory);
  if (processes === undefined) {
    await cleanUp();
    return undefined;
  }
  const { qmp, disks } = await reconnect(options, spec, processes, directory, signal);
  return createQemuVm({
    ...options,
    ...{ id: spec.id, directory, processes, qmp, disks, cleanUp },
    ...{ template: spec.template, freezing: undefined, tryClone: async () => {} },
    applyLimits: (limits) => applyLimits(host.cgroups, spec.id, limits),
  });
}

async function reconnect(
  options: QemuOptions,
  spec: VmSpec,
  processes: JailProcesses,
  directory: string,
  signal?: AbortSignal,
): Promise<{ qmp: QmpClient; disks: Map<string, AttachedDisk> }> {
  try {
    return await withDeadline(
      options.clock,
      ADOPT_TIMEOUT_MS,
      'The monitor',
      signal,
      async (bounded) => {
        const socket = await connectSocket(directory, SOCKET_NAMES.monitor, bounded);
        const qmp = await connectQmp(socket, bounded);
        const disks = await findDisks(qmp, spec, bounded);
        await removeHalfAttached(qmp, disks, bounded);
        return { qmp, disks };
      },
    );
  } catch (error) {
    signal?.throwIfAborted();
    // Dead or dying: the Vm's `exited` waits for the end and tells what it was.
    if (!(await isAlive(processes.vmm)) || isDisconnect(error)) {
      return { qmp: closedQmp(), disks: new Map() };
    }
    options.log.error('Cannot adopt VM', { vm: spec.id, error });
    const message = `Cannot adopt VM "${spec.id}": ${describeError(error)}`;
    throw new HypervisorError('Failed', message, error);
  }
}

function isDisconnect(error: unknown): boolean {
  if (error instanceof QmpError) return error.errorClass === 'Closed';
  return ['ECONNREFUSED', 'ENOENT', 'ECONNRESET'].includes(
    String((error as NodeJS.ErrnoException).code),
  );
}

/** Devices named by us; those on the SCSI bus have a LUN, those of the boot have none. */
async function findDisks(
  qmp: QmpClient,
  spec: VmSpec,
  signal: AbortSignal,
): Promise<Map<string, AttachedDisk>> {
  const boot = new Set(spec.disks.map((disk) => diskId(disk.serial)));
  const disks = new Map<string, AttachedDisk>();
  const devices = await qmp.command('qom-list', { path: '/machine/peripheral' }, signal);
  for (const { name } of devices as { name: string }[]) {
    if (!name.startsWith(diskId(''))) continue;
    if (boot.has(name)) {
      disks.set(name, { lun: undefined });
      continue;
    }
    const path = `/machine/peripheral/${name}`;
    disks.set(name, {
      lun: Number(await qmp.command('qom-get', { path, property: 'lun' }, signal)),
    });
  }
  return disks;
}

/** Block nodes without a device: their daemon died between adding the one and the other. */
async function removeHalfAttached(
  qmp: QmpClient,
  disks: ReadonlyMap<string, AttachedDisk>,
  signal: AbortSignal,
): Promise<void> {
  const nodes = await qmp.command('query-named-block-nodes', { flat: true }, signal);
  for (const { 'node-name': name } of nodes as { 'node-name': string }[]) {
    if (!name.startsWith(diskId('')) || disks.has(name)) continue;
    await qmp.command('blockdev-del', { 'node-name': name }, signal);
    const fdset = hotFdset(name.slice(diskId('').length));
    // Where nothing refers to a set any more QEMU may have removed it by itself.
    await qmp.command('remove-fd', { 'fdset-id': fdset }, signal).catch(() => {});
  }
}

function closedQmp(): QmpClient {
  return {
    command: (name) => Promise.reject(new QmpError('Closed', `Cannot ${name}: monitor is closed`)),
    onEvent: () => () => {},
    closed: Promise.resolve(undefined),
    close: () => {},
  };
}
