import { FakeClock } from '../../../base/clock.fake.ts';
import { silentLog } from '../../../base/log.ts';
import { systemRandom } from '../../../base/random.ts';
import { createMemoryStore } from '../../../store/memory.ts';
import type { Store } from '../../../store/store.ts';
import { createIdentityApi, IDENTITY_PREFIX } from '../http/api.ts';
import type { IdentityResponse } from '../http/call.ts';
import { openEmbeddedIdentity } from '../service.ts';
import type { EmbeddedIdentity, EmbeddedIdentityOptions } from '../service.ts';

/** As cheap as the algorithm allows: tests are about what is around it. */
export const CHEAP_HASH = { memoryKib: 8, passes: 1, parallelism: 1 };

export const BASE_URL = 'https://127.0.0.1:6443/identity/v3';

export interface ApiAnswer extends Omit<IdentityResponse, 'body'> {
  // Tests look into bodies of every shape.
  body: any;
}

/** A service with its API on a store in memory. */
export interface IdentityRig {
  clock: FakeClock;
  store: Store;
  identity: EmbeddedIdentity;
  adminPassword: string;
  /** @param path below `/v3`, with its query */
  call(
    method: string,
    path: string,
    options?: { token?: string; body?: unknown; headers?: Record<string, string> },
  ): Promise<ApiAnswer>;
  /** The token of somebody who logs in by password. */
  login(name: string, password: string, scope?: unknown, domain?: string): Promise<string>;
  /** A token with the role admin on the system. */
  admin: string;
  close(): Promise<void>;
}

export async function startRig(
  options: Partial<EmbeddedIdentityOptions> & { clock?: FakeClock } = {},
): Promise<IdentityRig> {
  const clock = options.clock ?? new FakeClock();
  const store = options.store ?? createMemoryStore({ clock });
  const identity = await openEmbeddedIdentity({
    clock,
    random: systemRandom,
    log: silentLog,
    hashParameters: CHEAP_HASH,
    ...options,
    store,
  });
  const urls = { identity: BASE_URL, kubernetes: 'https://127.0.0.1:6443' };
  const { adminPassword = '' } = await identity.bootstrap(urls);
  const api = createIdentityApi({ identity, log: silentLog, baseUrl: BASE_URL });

  const call: IdentityRig['call'] = async (method, path, { token, body, headers = {} } = {}) => {
    const url = new URL(`${IDENTITY_PREFIX}/v3${path}`, 'http://localhost');
    const answer = await api({
      method,
      path: url.pathname,
      query: url.searchParams,
      headers: { ...headers, ...(token !== undefined && { 'x-auth-token': token }) },
      body: Buffer.from(body === undefined ? '' : JSON.stringify(body)),
    });
    return { ...answer, body: answer.body === '' ? undefined : JSON.parse(answer.body) };
  };
  const login: IdentityRig['login'] = async (name, password, scope, domain = 'default') => {
    const user = { name, domain: { id: domain }, password };
    const auth = { identity: { methods: ['password'], password: { user } }, scope };
    const answer = await call('POST', '/auth/tokens', { body: { auth } });
    const token = answer.headers['X-Subject-Token'];
    if (token === undefined) throw new Error(`login of ${name}: ${JSON.stringify(answer.body)}`);
    return token;
  };
  const admin =
    adminPassword === '' ? '' : await login('admin', adminPassword, { system: { all: true } });
  return {
    clock,
    store,
    identity,
    adminPassword,
    call,
    login,
    admin,
    async close() {
      await identity.close();
      if (!options.store) await store.close();
    },
  };
}
