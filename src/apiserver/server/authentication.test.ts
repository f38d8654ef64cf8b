import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { AuthenticationRequest, Authenticator } from '../../api/auth.ts';
import {
  createBootstrapAuthenticator,
  createCertificateAuthenticator,
} from '../../auth/authenticators.ts';
import { systemClock } from '../../base/clock.ts';
import { authenticate, protocolsWithoutToken } from './authentication.ts';
import type { ApiExchange } from './exchange.ts';

const bearer: Authenticator = {
  authenticate: ({ bearerToken }: AuthenticationRequest) => {
    const user = { name: 'carol', uid: '', groups: [], extra: {} };
    return Promise.resolve(bearerToken === 'known' ? { user } : undefined);
  },
};

function ask(fields: Partial<ApiExchange>) {
  const exchange = { headers: {}, upgradable: false, ...fields } as ApiExchange;
  const bootstrap = createBootstrapAuthenticator(() => undefined, systemClock);
  return authenticate(exchange, [createCertificateAuthenticator(), bootstrap, bearer]);
}

const JOIN = 'Bearer abcdef.0123456789abcdef';
const authorization = (value: string) => ({ headers: { authorization: value } });

test('a request without credentials is anonymous', async () => {
  assert.equal((await ask({})).name, 'system:anonymous');
});

test('a credential that is not recognised is refused, never anonymous', async () => {
  for (const value of ['Bearer unknown', 'Bearer ', 'Basic Ym9iOng=', 'Bearer known known', JOIN]) {
    await assert.rejects(ask(authorization(value)), { reason: 'Unauthorized' }, value);
  }
  const clientCertificateError = 'certificate has expired';
  await assert.rejects(ask({ clientCertificateError }), { reason: 'Unauthorized' });
});

test('a token or a certificate is a user, in the group of all who are known', async () => {
  const carol = await ask(authorization('Bearer known'));
  assert.deepEqual([carol.name, carol.groups], ['carol', ['system:authenticated']]);
  const bob = await ask({ clientCertificate: { commonName: 'bob', organizations: ['dev'] } });
  assert.deepEqual([bob.name, bob.groups], ['bob', ['dev', 'system:authenticated']]);
});

test('a browser brings its token in a subprotocol, which goes no further', async () => {
  const token = `base64url.bearer.authorization.k8s.io.${Buffer.from('known').toString('base64url')}`;
  const protocols = `v4.channel.k8s.io, ${token}`;
  const headers = { 'sec-websocket-protocol': protocols };
  assert.equal((await ask({ headers, upgradable: true })).name, 'carol');
  assert.equal((await ask({ headers, upgradable: false })).name, 'system:anonymous');
  assert.equal(protocolsWithoutToken(protocols), 'v4.channel.k8s.io');
});
