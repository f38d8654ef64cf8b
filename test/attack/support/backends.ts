import type { IdentityHarness } from '../../../src/identity/conformance.ts';
import { createApiHarness } from '../../../src/identity/testing/api-harness.ts';
import type { ApiCall } from '../../../src/identity/testing/api-harness.ts';
import { systemClock } from '../../../src/base/clock.ts';
import { createKeystoneProvider } from '../../../src/identity/keystone/provider.ts';
import { startKeystone } from '../../e2e/support/keystone.ts';
import type { KeystoneLogin } from '../../e2e/support/keystone.ts';
import type { ServerNews, ServerOrder } from './server.child.ts';

/** An identity service that people of both tenants log in to, and what its administrator does. */
export interface IdentityBackend extends AsyncDisposable {
  name: string;
  /** What the server has to know of it. */
  order: Pick<ServerOrder, 'keystone'>;
  /** Once the server runs. */
  harness(news: ServerNews): Promise<IdentityHarness>;
}

/** The one of the server's own process. */
export function embeddedBackend(): IdentityBackend {
  return {
    name: 'embedded',
    order: {},
    harness({ identity: { url, adminPassword } = { url: '', adminPassword: '' } }) {
      const admin = { username: 'admin', password: adminPassword };
      return harnessAt(url, { ...admin, domain: 'Default', project: 'admin' });
    },
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

/** Debian's Keystone. */
export async function keystoneBackend(): Promise<IdentityBackend> {
  const keystone = await startKeystone();
  const { url, admin } = keystone;
  const { username, password, domain, project } = keystone.service;
  const scope = { kind: 'project' as const, project, domain };
  const credentials = { kind: 'password' as const, username, userDomain: domain, password, scope };
  return {
    name: 'Keystone',
    order: { keystone: { url, credentials } },
    harness: () => harnessAt(url, admin),
    [Symbol.asyncDispose]: () => keystone[Symbol.asyncDispose](),
  };
}

/** Both services are administered as any Keystone is. */
function harnessAt(url: string, admin: KeystoneLogin): Promise<IdentityHarness> {
  const { username, password, domain } = admin;
  const scope = { kind: 'system' as const };
  const credentials = { kind: 'password' as const, username, userDomain: domain, password, scope };
  const provider = createKeystoneProvider({ url, credentials });
  const advance = (ms: number) => systemClock.sleep(ms);
  return createApiHarness({ provider, call: callTo(url), admin, advance });
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
