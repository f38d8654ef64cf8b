import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import { test } from 'node:test';
import { systemClock } from '../../../base/clock.ts';
import { hypervisorConformance } from '../conformance.ts';
import type { HypervisorUnderTest } from '../conformance-cases.ts';
import type { HypervisorCapability, VmSpec } from '../hypervisor.ts';
import { createFakeHypervisor } from './fake.ts';
import type { FakeGuest } from './fake.ts';

function specIn(directory: string, id: string): VmSpec {
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

async function underTest(capabilities?: HypervisorCapability[]): Promise<HypervisorUnderTest> {
  const directory = await mkdtemp(join(tmpdir(), 'hypernetes-fake-'));
  const hypervisor = createFakeHypervisor({ clock: systemClock, agent, capabilities });
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

hypervisorConformance('fake', () => underTest());
hypervisorConformance('fake that can do no more than it must', () => underTest([]));

test('fake: faults and ends can be injected', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'hypernetes-fake-'));
  try {
    let fault: Error | undefined = new Error('no memory');
    const hypervisor = createFakeHypervisor({ clock: systemClock, fault: () => fault });
    const spec = specIn(directory, 'vm');
    await assert.rejects(hypervisor.create(spec), /no memory/);
    fault = undefined;
    const vm = await hypervisor.create(spec);
    const connection = await vm.connectControl();
    const closed = once(connection, 'close');
    const exit = { reason: 'failed', exitCode: 1, signal: undefined, message: 'broken' } as const;
    hypervisor.running.get('vm')?.end(exit);
    assert.deepEqual(await vm.exited, exit);
    await closed;
  } finally {
    await rm(directory, { recursive: true });
  }
});

test('fake: control connections are under flow control', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'hypernetes-fake-'));
  try {
    const guestEnd = Promise.withResolvers<Duplex>();
    const hypervisor = createFakeHypervisor({ clock: systemClock, agent: guestEnd.resolve });
    const vm = await hypervisor.create(specIn(directory, 'vm'));
    const ours = await vm.connectControl();
    const theirs = await guestEnd.promise;
    let sent = 0;
    while (sent < 1 << 22 && ours.write(Buffer.alloc(65_536))) sent += 65_536;
    assert.ok(sent < 1 << 20, 'an unread connection takes no more than its buffers');
    let received = 0;
    theirs.on('data', (chunk: Buffer) => (received += chunk.length));
    ours.end();
    await once(theirs, 'end');
    assert.equal(received, sent + 65_536);
    await vm.kill();
  } finally {
    await rm(directory, { recursive: true });
  }
});
