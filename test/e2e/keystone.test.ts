import { createLog } from '../../src/base/log.ts';
import { systemClock } from '../../src/base/clock.ts';
import { identityConformance } from '../../src/identity/conformance.ts';
import { createKeystoneProvider } from '../../src/identity/keystone/provider.ts';
import { createApiHarness } from '../../src/identity/testing/api-harness.ts';
import type { ApiCall } from '../../src/identity/testing/api-harness.ts';
import { startKeystone } from './support/keystone.ts';
import type { KeystoneLogin } from './support/keystone.ts';

function credentialsOf(login: KeystoneLogin) {
  const { username, password, domain, project } = login;
  const scope = { kind: 'project' as const, project, domain };
  return { kind: 'password' as const, username, userDomain: domain, password, scope };
}

function callTo(url: string): ApiCall {
  return async ({ method, path, headers, body }) => {
    const answer = await fetch(url + path, {
      method,
      headers: { 'content-type': 'application/json', ...headers },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await answer.text();
    return {
      status: answer.status,
      headers: Object.fromEntries(answer.headers),
      body: text.startsWith('{') ? JSON.parse(text) : text,
    };
  };
}

identityConformance('Keystone', async () => {
  const keystone = await startKeystone();
  const { url } = keystone;
  const provider = createKeystoneProvider({
    url,
    credentials: credentialsOf(keystone.service),
    pollIntervalMs: 1000,
    log: createLog({ component: 'identity', level: 'warn' }),
  });
  const harness = await createApiHarness({
    provider,
    call: callTo(url),
    admin: keystone.admin,
    advance: (ms) => systemClock.sleep(ms),
  });
  return {
    harness,
    async dispose() {
      await provider.close();
      await keystone[Symbol.asyncDispose]();
    },
  };
});
