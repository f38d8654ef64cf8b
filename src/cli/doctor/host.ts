import { readFile, statfs } from 'node:fs/promises';
import { cpus, totalmem, freemem } from 'node:os';
import { systemClock } from '../../base/clock.ts';
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
    const disk = await statfs(paths.root);
    const freeBytes = disk.bavail * disk.bsize;
    const detail = `${(freeBytes / GIB).toFixed(1)} GiB free at ${paths.root}`;
    if (freeBytes >= 5 * GIB) return good(detail);
    return limit(detail, 'Images and the writable layers of pods lie there: make room.');
  },
};

/** Which control group hierarchies are mounted, from the kernel's own list. */
export const cgroupCheck: Check = {
  name: 'control groups',
  async run() {
    const mounts = (await readFile('/proc/self/mounts', 'utf8')).split('\n');
    const v2 = mounts.find((line) => line.split(' ')[2] === 'cgroup2')?.split(' ')[1];
    const v1 = mounts.filter((line) => line.split(' ')[2] === 'cgroup').length;
    if (v2 === '/sys/fs/cgroup') return good('v2');
    if (v1 > 0)
      return good(v2 ? `hybrid: ${v1} v1 hierarchies, v2 at ${v2}` : `v1: ${v1} hierarchies`);
    return limit('none', 'The memory and CPU time of a VM cannot be limited from outside.');
  },
};

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
