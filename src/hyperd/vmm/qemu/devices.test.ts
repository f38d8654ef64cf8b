import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { deviceNumber, hostDevices } from './devices.ts';

test('deviceNumber() takes small and large numbers apart', () => {
  assert.equal(deviceNumber(0xfe00n), '254:0');
  assert.equal(deviceNumber(0x801n), '8:1');
  assert.equal(deviceNumber(0x1231_0345n), '259:74565');
  assert.equal(deviceNumber(0x10_0000_0234_05n), '4660:5');
});

test('hostDevices() names the disk that a file lies on, once, and none where there is none', async () => {
  const base = await mkdtemp(join(tmpdir(), 'hypernetes-devices-'));
  try {
    const files = ['a', 'b'].map((name) => join(base, name));
    for (const file of files) await writeFile(file, '');
    const number = deviceNumber((await stat(base, { bigint: true })).dev);
    const partition = join(base, 'sys/devices/vda/vda1');
    await mkdir(partition, { recursive: true });
    await mkdir(join(base, 'sys/dev/block'), { recursive: true });
    await writeFile(join(base, 'sys/devices/vda/dev'), '9:99\n');
    await writeFile(join(partition, 'dev'), `${number}\n`);
    assert.deepEqual(await hostDevices(files, join(base, 'sys')), []);
    await symlink('../../devices/vda/vda1', join(base, 'sys/dev/block', number));
    assert.deepEqual(await hostDevices(files, join(base, 'sys')), [number]);
    await writeFile(join(partition, 'partition'), '1\n');
    assert.deepEqual(await hostDevices(files, join(base, 'sys')), ['9:99']);
    await assert.rejects(hostDevices([join(base, 'gone')]), { code: 'ENOENT' });
  } finally {
    await rm(base, { recursive: true });
  }
});
