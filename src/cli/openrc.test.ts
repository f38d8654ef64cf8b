import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatOpenrc, keystoneCredentials, parseOpenrc } from './openrc.ts';

test('openrc files are read as a shell would, and written so that it reads them back', () => {
  const text = [
    '# comment',
    'export OS_USERNAME=alice',
    `OS_PASSWORD='it'\\''s'`,
    'export OS_PROJECT_NAME="a \\"b\\" $c"',
    'unset OS_TOKEN',
    'echo OS_X=1',
  ].join('\n');
  const values = { OS_USERNAME: 'alice', OS_PASSWORD: "it's", OS_PROJECT_NAME: 'a "b" $c' };
  assert.deepEqual(parseOpenrc(text), values);
  assert.deepEqual(parseOpenrc(formatOpenrc(values)), values);
});

test('credentials are a user with a scope, or an application credential; what is missing is named', () => {
  const user = { OS_USERNAME: 'u', OS_PASSWORD: 'p' };
  assert.deepEqual(keystoneCredentials({ ...user, OS_PROJECT_NAME: 'service' }), {
    ...{ kind: 'password', username: 'u', password: 'p', userDomain: 'Default' },
    scope: { kind: 'project', project: 'service', domain: 'Default' },
  });
  const system = keystoneCredentials({ ...user, OS_SYSTEM_SCOPE: 'all' });
  assert.deepEqual(system.kind === 'password' && system.scope, { kind: 'system' });
  const ids = { OS_APPLICATION_CREDENTIAL_ID: 'i', OS_APPLICATION_CREDENTIAL_SECRET: 's' };
  assert.deepEqual(keystoneCredentials(ids), {
    ...{ kind: 'applicationCredential', id: 'i', secret: 's' },
  });
  assert.throws(() => keystoneCredentials(user), /does not set OS_PROJECT_NAME/);
  assert.throws(() => keystoneCredentials({ OS_USERNAME: 'u' }), /does not set OS_PASSWORD/);
});
