import { existsSync } from 'node:fs';
import { readFile, statfs } from 'node:fs/promises';
import { cpus, totalmem, freemem } from 'node:os';
import { dirname } from 'node:path';
import { systemClock } from '../../base/clock.ts';
import { describeError } from '../../base/log.ts';
import {
  detectCgroups,
  prepareCgroups,
  removeUnusedParents,
} from '../../hyperd/vmm/qemu/cgroup.ts';
import type { CgroupLayout } from '../../hyperd/vmm/qemu/cgroup.ts';
import { good, limit, missing } from './check.ts';
import type { Check } from './check.ts';

const MIB = 1024 * 1024;
const GIB = 1024 * MIB;

export const processorCheck: Check = {
  name: 'processor',
  async run() {
    const model = cpus()[0]?.model.trim() ?? 'unknown';
    return good(`${cpus().length} × ${model}`);
  },
};

export const memoryCheck: Check = {
  name: 'memory',
  async run() {
    const detail = `${(totalmem() / GIB).toFixed(1)} GiB, ${(freemem() / GIB).toFixed(1)} GiB free`;
    if (freemem() >= GIB) return good(detail);
    return limit(detail, 'A pod takes about 130 MiB and more: only few will fit.');
  },
};

export const diskCheck: Check = {
  name: 'disk',
  async run({ paths }) {
    let place = paths.root;
    while (!existsSync(place)) place = dirname(place);
    const disk = await statfs(place);
    const freeBytes = disk.bavail * disk.bsize;
    const detail = `${(freeBytes / GIB).toFixed(1)} GiB free at ${place}`;
    if (freeBytes >= 5 * GIB) return good(detail);
    return limit(detail, 'Images and the writable layers of pods lie there: make room.');
  },
};

/** What a VM can do to the others where nothing limits it from outside. */
const UNLIMITED = {
  cpu: 'the CPU time of a VM is not limited',
  memory: 'the memory of a VM and its emulator is not limited',
  pids: 'the number of threads of an emulator is not limited',
  io: 'the disk traffic of a VM is not weighted',
};

/** Makes groups as VMs get them, under a name of its own, and removes them. */
export const cgroupCheck: Check = {
  name: 'control groups',
  async run() {
    const layout = await detectCgroups(`hypernetes-doctor-${process.pid}-groups`);
    const described = describeGroups(layout);
    try {
      await prepareCgroups(layout);
      await removeUnusedParents(layout);
    } catch (error) {
      return missing(
        `${described}, but no group can be made: ${describeError(error)}`,
        'VMs cannot be limited, so none is started. In a container, the control groups must be writable.',
      );
    }
    const absent = Object.entries(UNLIMITED).filter(([name]) => !(name in layout.controllers));
    if (absent.length === 0) return good(described);
    return limit(described, `From outside ${absent.map(([, text]) => text).join(', and ')}.`);
  },
};

function describeGroups({ controllers }: CgroupLayout): string {
  const found = Object.entries(controllers);
  if (found.length === 0) return 'no controller is mounted';
  const versions = [...new Set(found.map(([, { version }]) => version))].sort();
  const mode = versions.length > 1 ? 'hybrid of v1 and v2' : `v${versions[0]}`;
  return `${mode}: ${found.map(([name]) => name).join(', ')}`;
}

/** From capability.h, in the order of their bits. */
const CAPABILITIES: [name: string, bit: number, consequence: string][] = [
  ['CAP_SYS_ADMIN', 21, 'Namespaces and mounts for jails cannot be made: pods cannot run.'],
  ['CAP_NET_ADMIN', 12, 'Networks cannot be made: pods cannot run.'],
  ['CAP_SETUID', 7, 'VMs cannot get a user of their own: pods cannot run.'],
  ['CAP_CHOWN', 0, 'Disks cannot be given to the user of a VM: pods cannot run.'],
  [
    'CAP_SYS_RESOURCE',
    24,
    'Resource limits above those of this session cannot be set; nothing needs it.',
  ],
];

export const capabilityCheck: Check = {
  name: 'capabilities',
  async run() {
    const status = await readFile('/proc/self/status', 'utf8');
    const mask = BigInt(`0x${/^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? '0'}`);
    const absent = CAPABILITIES.filter(([, bit]) => ((mask >> BigInt(bit)) & 1n) === 0n);
    if (absent.length === 0) return good('all that are needed');
    const detail = `without ${absent.map(([name]) => name).join(', ')}`;
    const consequence = absent.map(([, , text]) => text).join(' ');
    const fatal = absent.some(([name]) => name !== 'CAP_SYS_RESOURCE');
    return fatal ? missing(detail, consequence) : limit(detail, consequence);
  },
};

/** A wall clock that goes differently from the monotonic one is being corrected, or broken. */
const CLOCK_WATCH_MS = 200;
const CLOCK_DRIFT_MS_MAX = 5;
const BUILD_YEAR = 2026;

export const clockCheck: Check = {
  name: 'clock',
  async run({ signal }) {
    const source = await readFile(
      '/sys/devices/system/clocksource/clocksource0/current_clocksource',
      'utf8',
    )
      .then((text) => text.trim())
      .catch(() => 'unknown');
    const before = systemClock.nowMs() - systemClock.monotonicMs();
    await systemClock.sleep(CLOCK_WATCH_MS, signal);
    const driftMs = Math.abs(systemClock.nowMs() - systemClock.monotonicMs() - before);
    const now = new Date(systemClock.nowMs());
    const detail = `${now.toISOString()}, clock source ${source}`;
    if (now.getUTCFullYear() < BUILD_YEAR) {
      return limit(detail, 'The clock is years behind: certificates and tokens will not be valid.');
    }
    if (driftMs > CLOCK_DRIFT_MS_MAX) {
      return limit(detail, `The clock moved by ${driftMs.toFixed(0)} ms in ${CLOCK_WATCH_MS} ms.`);
    }
    return good(detail);
  },
};
