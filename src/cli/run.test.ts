import assert from 'node:assert/strict';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { test } from 'node:test';
import type { MachineConfig } from './config.ts';
import { UsageError } from './errors.ts';
import { fatalReason } from './run.ts';

const config = { apiPort: 6443, kubeletPort: 10250, registryPort: 5000 } as MachineConfig;

test('a port that is taken is named with its use and its option', async () => {
  const first = createServer();
  await new Promise<void>((resolve) => first.listen(0, '127.0.0.1', resolve));
  const { port } = first.address() as AddressInfo;
  const second = createServer();
  const error = await new Promise<Error>((resolve) => {
    second.once('error', resolve);
    second.listen(port, '127.0.0.1');
  });
  await new Promise((resolve) => first.close(resolve));
  assert.equal(
    fatalReason(error, { ...config, kubeletPort: port }),
    `Cannot start: port ${port} is taken (kubelet). Choose another with --kubelet-port.`,
  );
  assert.equal(fatalReason(error, config), `Cannot start: port ${port} is taken.`);
});

test('what the person at the terminal cannot mend is tried again', () => {
  assert.equal(fatalReason(new Error('lost connection'), config), undefined);
  const refused = Object.assign(new Error('x'), { code: 'EACCES', syscall: 'open' });
  assert.equal(fatalReason(refused, config), undefined);
  assert.equal(fatalReason(new UsageError('No set-up.'), config), 'No set-up.');
});
