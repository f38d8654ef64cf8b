import { execute } from '../../base/exec.ts';
import { good, limit, missing } from './check.ts';
import type { Check } from './check.ts';
import { describeError } from '../../base/log.ts';
import { openHypervisor } from '../hypervisor.ts';

/** Boots a VM: under KVM within a time limit, and under emulation where that fails. */
export const hypervisorCheck: Check = {
  name: 'virtual machines',
  async run({ paths, signal }) {
    try {
      const hypervisor = await openHypervisor(paths, `hypernetes-doctor-${process.pid}`);
      const probed = hypervisor.probe(signal).finally(() => hypervisor.close());
      const { accelerator, acceleratorReason, version } = await probed;
      const detail = `QEMU ${version}, ${accelerator}: a probe VM was booted`;
      if (accelerator === 'kvm') return good(detail);
      return limit(detail, `Guests are emulated (TCG), several times slower. ${acceleratorReason}`);
    } catch (error) {
      return missing(describeError(error), 'No VM could be booted: pods cannot run.');
    }
  },
};

export const toolsCheck: Check = {
  name: 'programs',
  async run({ signal }) {
    const programs: [command: string, args: string[]][] = [
      ['ip', ['-V']],
      ['nft', ['--version']],
      ['/sbin/mke2fs', ['-V']],
      ['qemu-system-x86_64', ['--version']],
    ];
    const absent: string[] = [];
    for (const [command, args] of programs) {
      const works = await execute(command, args, { signal }).catch(() => undefined);
      if (!works) absent.push(command);
    }
    if (absent.length === 0) return good(programs.map(([command]) => command).join(', '));
    return missing(`without ${absent.join(', ')}`, 'Run "hypernetes setup", which installs them.');
  },
};
