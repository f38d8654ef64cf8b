import { createHash } from 'node:crypto';
import { open, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '../../../base/clock.ts';
import type { Exec } from '../../../base/exec.ts';
import { HypervisorError } from '../hypervisor.ts';
import type { TemplateUse, VmSpec } from '../hypervisor.ts';
import { STATE_URI, TEMPLATE_FILES, launchPlan } from './argv.ts';
import type { LaunchContext } from './argv.ts';

/**
 * How QEMU saves a VM as a template, and how one that was started from it is ready: it writes the
 * state of its devices. An heir's monitor is frozen as a whole instead, where that works.
 */

/**
 * What a template depends on beside QEMU's version: the programs round it, and how it is started.
 *
 * @param context of any VM of this machine
 */
export async function templateFormat(
  programPaths: string[],
  context: LaunchContext,
): Promise<string> {
  const hash = createHash('sha256');
  for (const path of programPaths) hash.update(await readFile(path));
  return hash.update(JSON.stringify(launchPlan(ANY_VM, context))).digest('hex');
}

const ANY_VM: VmSpec = {
  ...{ id: 'any', directory: '/any', cpuCount: 1, memoryMib: 128, uid: 1000 },
  ...{ kernelPath: '/any', initrdPath: '/any', kernelArguments: [], disks: [] },
  nic: { mac: '02:00:00:00:00:01' },
  template: { role: 'heir', directory: '/any' },
  limits: { cpuMillis: 0, cpuWeightMillis: 0, memoryMib: 128, processCount: 1 },
};

/** Sends a command to the monitor and returns its answer. */
export type Command = (name: string, args?: Record<string, unknown>) => Promise<unknown>;

/** Saving takes some 10 ms, loading less. */
const SAVE_TIMEOUT_MS = 60_000;
const POLL_MS = 1;
const MEMORY_IS_THERE = { capabilities: [{ capability: 'x-ignore-shared', state: true }] };

/**
 * The files of a source, empty. The memory's space is taken at once: a disk that fills up later
 * would end the VM at whichever of its writes comes first.
 * @throws HypervisorError Failed, when the disk has no room for it
 */
export async function createTemplateFiles(spec: VmSpec, exec: Exec): Promise<void> {
  if (spec.template?.role !== 'source') return;
  const { directory } = spec.template;
  const memory = join(directory, TEMPLATE_FILES.memory);
  await rm(memory, { force: true });
  const result = await exec('fallocate', ['--length', `${spec.memoryMib}MiB`, memory]);
  if (result.exitCode !== 0) {
    const why = result.stderr.trim();
    throw new HypervisorError(
      'Failed',
      `Cannot make the memory of template "${directory}": ${why}`,
    );
  }
  await (await open(statePath(spec.template), 'w', 0o600)).close();
}

export function statePath({ directory }: TemplateUse): string {
  return join(directory, TEMPLATE_FILES.state);
}

/**
 * Stops the VM and writes the state of its devices; its memory is in the file already.
 *
 * @param start hands the state's file to the emulator and has it begin
 */
export async function saveState(
  command: Command,
  start: () => Promise<void>,
  clock: Clock,
  signal?: AbortSignal,
): Promise<void> {
  await command('stop');
  await command('migrate-set-capabilities', MEMORY_IS_THERE);
  await start();
  const deadlineMs = clock.monotonicMs() + SAVE_TIMEOUT_MS;
  for (;;) {
    const migration = (await command('query-migrate')) as { status?: string };
    if (migration.status === 'completed') return;
    const why = String((migration as { 'error-desc'?: string })['error-desc'] ?? migration.status);
    if (migration.status === 'failed' || clock.monotonicMs() > deadlineMs) {
      throw new HypervisorError('Failed', `Cannot save the VM as a template: ${why}`);
    }
    await clock.sleep(POLL_MS, signal);
  }
}

/** Gives a clone the state of its devices. One that cannot take it ends, and its monitor with it. */
export async function loadState(
  command: Command,
  clock: Clock,
  signal?: AbortSignal,
): Promise<void> {
  await command('migrate-set-capabilities', MEMORY_IS_THERE);
  await command('migrate-incoming', { uri: STATE_URI });
  for (;;) {
    const { status } = (await command('query-status')) as { status: string };
    if (status !== 'inmigrate') break;
    await clock.sleep(POLL_MS, signal);
  }
}
