import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import { test } from 'node:test';
import { systemClock } from '../../../base/clock.ts';
import { hypervisorConformance } from '../conformance.ts';
import { createFakeHypervisor } from './fake.ts';
import { createFakeHarness, specIn } from './harness.fake.ts';

hypervisorConformance('fake', () => createFakeHarness());
hypervisorConformance('fake that can do no more than it must', () =>
  createFakeHarness({ capabilities: [] }),
);

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
