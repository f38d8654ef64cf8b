import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseRegistriesConfig } from './registries.ts';

test('parseRegistriesConfig() names the field that is wrong', async () => {
  const cases: [document: unknown, message: RegExp][] = [
    [[], /the file is not a mapping/],
    [{ mirror: {} }, /mirror is not known \(known: mirrors, configs\)/],
    [
      { mirrors: { a: { endpoint: ['ftp://x'] } } },
      /mirrors\["a"\]\.endpoint\[0\] is not an http or https URL/,
    ],
    [{ mirrors: { a: { endpoint: ['http://u:p@x'] } } }, /without user/],
    [{ mirrors: { a: { endpoint: 'http://x' } } }, /endpoint is not a list/],
    [
      { configs: { a: { auth: { username: 'u' } } } },
      /configs\["a"\]\.auth is not a complete credential/,
    ],
    [{ configs: { a: { auth: { auth: 'eA==' } } } }, /complete credential/],
    [{ configs: { a: { tls: { insecure_skip_verify: 'yes' } } } }, /not true or false/],
    [{ configs: { a: { tls: { ca: 'x' } } } }, /tls\.ca is not known/],
  ];
  for (const [document, message] of cases) {
    await assert.rejects(
      parseRegistriesConfig(document, () => Promise.resolve('')),
      { name: 'RegistriesConfigError', message },
    );
  }
  const config = await parseRegistriesConfig(
    {
      configs: {
        a: { auth: { auth: Buffer.from('u:p:q').toString('base64') } },
        b: { auth: { identity_token: 't' } },
      },
    },
    () => Promise.resolve(''),
  );
  assert.deepEqual(config.hosts.get('a')?.credential, { username: 'u', password: 'p:q' });
  assert.deepEqual(config.hosts.get('b')?.credential, { username: '<token>', password: 't' });
});
