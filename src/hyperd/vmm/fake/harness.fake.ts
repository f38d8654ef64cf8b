import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import { systemClock } from '../../../base/clock.ts';
import type { HypervisorUnderTest } from '../conformance-cases.ts';
import type { VmSpec } from '../hypervisor.ts';
import { createFakeHypervisor } from './fake.ts';
import type { FakeGuest, FakeHypervisorOptions } from './fake.ts';

/** The fake hypervisor, as the conformance suite wants to have it. */
export async function createFakeHarness(
  options: Partial<FakeHypervisorOptions> = {},
): Promise<HypervisorUnderTest> {
  const directory = await mkdtemp(join(tmpdir(), 'hypernetes-fake-'));
  const hypervisor = createFakeHypervisor({ clock: systemClock, agent, ...options });
  let count = 0;
  return {
    hypervisor,
    restarted: async () => hypervisor,
    async spec() {
      const id = `vm-${count++}`;
      await mkdir(join(directory, id));
      return specIn(join(directory, id), id);
    },
    templateDirectory: () => mkdtemp(join(directory, 'template-')),
    async disk(serial, content) {
      const path = join(directory, `disk-${count++}`);
      await writeFile(path, content);
      return { serial, path, readOnly: true };
    },
    remains: async () => [...hypervisor.running.keys()],
    dispose: () => rm(directory, { recursive: true }),
  };
}

export function specIn(directory: string, id: string): VmSpec {
  return {
    id,
    directory,
    cpuCount: 1,
    memoryMib: 128,
    kernelPath: '/kernel',
    initrdPath: '/initrd',
    kernelArguments: [],
    disks: [],
    nic: undefined,
    uid: 70_001,
    limits: { cpuMillis: 0, cpuWeightMillis: 100, memoryMib: 256, processCount: 64 },
  };
}

/** The agent that the conformance suite talks to. */
function agent(connection: Duplex, guest: FakeGuest): void {
  connection.on('error', () => {});
  connection.on('data', (chunk: Buffer) => {
    for (const line of chunk.toString('utf8').trim().split('\n')) {
      const [word, serial = ''] = line.split(' ');
      if (word === 'KEEP') guest.memory.set('kept', serial);
      if (word === 'KEEP' || word === 'KEPT') {
        connection.write(`${word} ${guest.memory.get('kept')}\n`);
      }
      if (word === 'ECHO') connection.write(`${line}\n`);
      if (word === 'OFF') guest.powerOff();
      if (word === 'PANIC') guest.panic('asked for');
      const disk = word === 'DISK' && guest.disks().find((d) => d.serial === serial);
      if (disk) {
        void readFile(disk.path, 'utf8').then((text) =>
          connection.write(`DISK ${text.slice(0, 16)}\n`),
        );
      }
    }
  });
}
