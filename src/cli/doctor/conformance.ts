import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { systemClock } from '../../base/clock.ts';
import { CONFORMANCE_CASES } from '../../hyperd/vmm/conformance-cases.ts';
import { runConformance } from '../../hyperd/vmm/conformance-run.ts';
import { createQemuHarness } from '../../hyperd/vmm/qemu/harness.ts';
import { MACHINE_TYPES } from '../../hyperd/vmm/qemu/models.ts';
import type { MachineType } from '../../hyperd/vmm/qemu/models.ts';
import { conformanceGuest } from '../assets.ts';
import { qemuOptions } from '../hypervisor.ts';
import { good, limit, missing } from './check.ts';
import type { Check, CheckContext, Finding } from './check.ts';
import { nodeMachine, withProbedHypervisor } from './virtualization.ts';

/** Ten boots; an emulated one takes 2 s, and on a busy machine ten times as long. */
const SUITE_LIMIT_MS = 600_000;
const CASE_LIMIT_MS = 120_000;
/** Of the suite's VMs: below those of pods and of probes. */
const UID_BASE = 64_900;

/**
 * The suite that every hypervisor passes, on this machine, once for each device model. What is
 * promised under emulation is tried when Hypernetes is built; KVM is each machine's own.
 */
export const conformanceChecks: Check[] = MACHINE_TYPES.map((machineType) => ({
  name: `suite of ${machineType}`,
  limitMs: SUITE_LIMIT_MS,
  async run(context) {
    const { accelerator } = await withProbedHypervisor(context, async ({ info }) => info);
    if (accelerator !== 'kvm' && !context.full) {
      return limit(
        `${CONFORMANCE_CASES.length} cases not run: they are for KVM, which does not work here`,
        '"doctor --full" runs them emulated, half a minute for each device model.',
      );
    }
    const finding = await runSuite(machineType, context);
    if (finding.verdict !== 'missing' || machineType === (await nodeMachine(context))) {
      return finding;
    }
    return { ...finding, verdict: 'limit' };
  },
}));

async function runSuite(machineType: MachineType, context: CheckContext): Promise<Finding> {
  const workDirectory = join(context.directory, machineType);
  await mkdir(workDirectory, { mode: 0o711 });
  const cgroupParent = `hypernetes-doctor-${process.pid}-${machineType}`;
  const under = await createQemuHarness({
    ...(await qemuOptions(context.paths, machineType, cgroupParent)),
    ...(await conformanceGuest(context.paths)),
    ...{ workDirectory, directory: join(workDirectory, 'vmm'), cgroupParent, uidBase: UID_BASE },
  });
  try {
    const startMs = systemClock.monotonicMs();
    const results = await runConformance(under, systemClock, CASE_LIMIT_MS, context.signal);
    const { accelerator } = await under.hypervisor.probe(context.signal);
    const seconds = ((systemClock.monotonicMs() - startMs) / 1000).toFixed(0);
    const failures = results.filter(({ outcome }) => outcome === 'failed');
    const passed = results.filter(({ outcome }) => outcome === 'passed').length;
    const detail = `${passed} of ${results.length} cases passed in ${seconds} s, ${accelerator}`;
    if (failures.length === 0) return good(detail);
    const told = failures.map(({ name, message }) => `"${name}": ${message}`).join('; ');
    const consequence = `VMs of ${machineType} do not do here what pods rely on. ${told}`;
    return missing(detail, consequence);
  } finally {
    await under.dispose();
  }
}
