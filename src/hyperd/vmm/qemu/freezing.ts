import { rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Exec } from '../../../base/exec.ts';
import type { Log } from '../../../base/log.ts';
import { HypervisorError } from '../hypervisor.ts';
import type { TemplateUse } from '../hypervisor.ts';
import { INVENTORY_NAME, TEMPLATE_FILES } from './argv.ts';
import type { ProcessIdentity } from './jail.ts';

/**
 * The freezing of monitors: `hyperjail freeze` writes the process of a stopped VM to a file of the
 * template, and `hyperthaw` becomes it again in the cell of a clone. A clone that starts so has the
 * guest's code translated already. See docs/adr/0015-a-template-is-a-frozen-emulator.md.
 */
export interface Freezing {
  /**
   * Of an heir: whether it is to be frozen, which is so where the guest is emulated, unless an
   * earlier one could not be. KVM keeps half of a VM in the kernel, and translates nothing. A source
   * never is: what it has translated is mostly the boot's, which clones have no use for.
   * Of a clone: whether what it starts from was frozen.
   */
  isUsed(template: TemplateUse | undefined, accelerator: string): Promise<boolean>;
  /**
   * Freezes the monitor of a VM that stands still and has no clients, and ends it.
   * @throws HypervisorError Failed. Where it cannot be done here, none is frozen any more.
   */
  freeze(vm: FrozenVm, template: TemplateUse, signal?: AbortSignal): Promise<void>;
  /** Says that what was frozen does not start: it is not done any more. */
  giveUp(why: string): void;
}

export interface FrozenVm {
  process: ProcessIdentity;
  directory: string;
}

export interface FreezingOptions {
  jailPath: string;
  exec: Exec;
  log: Log;
}

/** By which hyperjail says that trying again is of no use, as it would be with a full disk. */
const EXIT_REFUSED = 124;

export function createFreezing({ jailPath, exec, log }: FreezingOptions): Freezing {
  let isRefused = false;
  const giveUp = (why: string) => {
    isRefused = true;
    log.error('Emulators cannot be frozen here; templates are saved without them', { why });
  };
  return {
    giveUp,
    async isUsed(template, accelerator) {
      if (template === undefined || template.role === 'source') return false;
      if (template.role === 'heir') return accelerator === 'tcg' && !isRefused;
      return (await stat(monitorPath(template)).catch(() => undefined)) !== undefined;
    },
    async freeze({ process, directory }, template, signal) {
      const args = [
        ...['--pid', String(process.pid), '--start-ticks', String(process.startTicks)],
        ...['--inventory', join(directory, INVENTORY_NAME), '--image', monitorPath(template)],
      ];
      const result = await exec(jailPath, ['freeze', ...args], { signal });
      if (result.exitCode === 0) return rm(join(template.directory, TEMPLATE_FILES.state));
      const why = result.stderr.trim();
      if (result.exitCode === EXIT_REFUSED) giveUp(why);
      throw new HypervisorError('Failed', `Cannot freeze the VM: ${why}`);
    },
  };
}

function monitorPath({ directory }: TemplateUse): string {
  return join(directory, TEMPLATE_FILES.monitor);
}
