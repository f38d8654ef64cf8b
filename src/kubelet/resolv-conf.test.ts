import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { parseResolvConf, readNodeDns } from './resolv-conf.ts';

/** Goal: pods get resolvers that they can reach. Method: files as they are found on machines. */
test('what pods cannot use is left out', () => {
  const text = [
    '# made by hand',
    'nameserver 127.0.0.53',
    'nameserver ::1',
    'nameserver 2001:db8::1',
    'nameserver 192.0.2.53 # the first',
    'nameserver\t192.0.2.54',
    'nameserver 192.0.2.53',
    'domain example.net',
    'search example.org corp.example.org .',
    'options edns0 trust-ad',
    'options ndots:2',
    'sortlist 192.0.2.0',
  ].join('\n');
  assert.deepEqual(parseResolvConf(text), {
    nameservers: ['192.0.2.53', '192.0.2.54'],
    searches: ['example.org', 'corp.example.org'],
    options: ['edns0', 'trust-ad', 'ndots:2'],
  });
});

test('behind a resolver on the loopback its own resolvers are used', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'resolv-'));
  try {
    const [stub, real, missing] = ['stub', 'real', 'missing'].map((name) => join(directory, name));
    await writeFile(stub ?? '', 'nameserver 127.0.0.53\nsearch example.org\n');
    await writeFile(real ?? '', 'nameserver 192.0.2.53\nsearch example.org\n');
    const files = [stub ?? '', real ?? ''];
    assert.deepEqual((await readNodeDns(files)).nameservers, ['192.0.2.53']);
    const alone = await readNodeDns([stub ?? '', missing ?? '']);
    assert.deepEqual(alone, { nameservers: [], searches: ['example.org'], options: [] });
    assert.deepEqual((await readNodeDns([missing ?? ''])).nameservers, []);
  } finally {
    await rm(directory, { recursive: true });
  }
});
