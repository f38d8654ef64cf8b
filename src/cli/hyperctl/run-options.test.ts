import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { UsageError } from '../errors.ts';
import { parseEnvironment, parseMemory, parsePublish, planRun } from './run-options.ts';

test('parsePublish() reads mappings as docker writes them', () => {
  const cases: [text: string, address: string, hostPort: number, guestPort: number][] = [
    ['80', '0.0.0.0', 0, 80],
    ['8080:80', '0.0.0.0', 8080, 80],
    ['8080:80/tcp', '0.0.0.0', 8080, 80],
    ['127.0.0.1:8080:80', '127.0.0.1', 8080, 80],
    ['127.0.0.1::80', '127.0.0.1', 0, 80],
    ['[::1]:8080:80', '::1', 8080, 80],
  ];
  for (const [text, hostAddress, hostPort, guestPort] of cases) {
    assert.deepEqual(parsePublish(text), { hostAddress, hostPort, guestPort }, text);
  }
  for (const text of ['', 'x', '80:', ':0', '70000:1', '53:53/udp', '1.2.3:4:5', '256.0.0.1:1:1']) {
    assert.throws(() => parsePublish(text), UsageError, text);
  }
});

test('parseMemory() knows the units of docker and of Kubernetes', () => {
  assert.equal(parseMemory('512m'), 512 << 20);
  assert.equal(parseMemory('1.5g'), 1.5 * 2 ** 30);
  assert.equal(parseMemory('64Mi'), 64 << 20);
  assert.equal(parseMemory('1000'), 1000);
  assert.throws(() => parseMemory('much'), /Cannot read --memory "much"/);
});

test('parseEnvironment() takes values as they are, and those of this process', () => {
  const own = { HERE: 'x' };
  assert.deepEqual(parseEnvironment(['A=b=c', 'HERE', 'MISSING', 'D=$(A) $'], own), [
    { name: 'A', value: 'b=c' },
    { name: 'HERE', value: 'x' },
    { name: 'D', value: '$$(A) $$' },
  ]);
  assert.throws(() => parseEnvironment(['=x'], own), /Cannot use --env "=x"/);
});

test('planRun() makes volumes of memory, of disk and of the content of files', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'run-options-'));
  try {
    const file = join(directory, 'motd');
    await writeFile(file, 'hello');
    const volume = ['memory:10m:/tmp', 'scratch:/data', `${file}:/etc/motd:ro`];
    const { pod, volumes } = await planRun('a', 'busybox', [], { volume });
    const content = Buffer.from('hello').toString('base64');
    const files = [{ path: 'motd', mode: 0o644, content }];
    assert.deepEqual(volumes, [
      { name: 'volume-1', type: 'memory', sizeLimitMib: 10 },
      { name: 'volume-2', type: 'scratch', sizeLimitMib: 0 },
      { name: 'volume-3', type: 'files', content: { version: 1, files } },
    ]);
    assert.deepEqual(pod.spec?.containers[0]?.volumeMounts?.[2], {
      name: 'volume-3',
      mountPath: '/etc/motd',
      subPath: 'motd',
      readOnly: true,
    });
    for (const wrong of [`${directory}:/data`, '/nothing:/x', 'memory:1m', 'x']) {
      await assert.rejects(
        planRun('a', 'b', [], { volume: [wrong] }),
        /Cannot use --volume/,
        wrong,
      );
    }
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
});
