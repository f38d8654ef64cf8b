import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { IdentityHarness } from '../../../src/identity/conformance.ts';
import { createApiHarness } from '../../../src/identity/testing/api-harness.ts';
import type { ApiCall } from '../../../src/identity/testing/api-harness.ts';
import { systemClock } from '../../../src/base/clock.ts';
import type { DataPaths, MachineConfig } from '../../../src/cli/config.ts';
import { formatOpenrc, parseOpenrc } from '../../../src/cli/openrc.ts';
import { createKeystoneProvider } from '../../../src/identity/keystone/provider.ts';
import { startKeystone } from '../../e2e/support/keystone.ts';
import type { KeystoneLogin } from '../../e2e/support/keystone.ts';
import type { AttackClient } from './client.ts';

/** A server that runs. */
export interface Started {
  paths: DataPaths;
  port: number;
  client: AttackClient;
  ca: string;
}

/** An identity service that people of both tenants log in to, and what its administrator does. */
export interface IdentityBackend extends AsyncDisposable {
  name: string;
  /** How the server is told of it; files that this takes lie in the data directory. */
  prepare(directory: string): Promise<Pick<MachineConfig, 'keystone'>>;
  harness(server: Started): Promise<IdentityHarness & { call: ApiCall }>;
}

const OPENRC_TRIES = 200;

/** The one of the server's own, on its port. */
export function embeddedBackend(): IdentityBackend {
  return {
    name: 'embedded',
    prepare: () => Promise.resolve({ keystone: null }),
    async harness({ paths, port, client, ca }) {
      const openrc = parseOpenrc(await written(paths.adminOpenrc));
      const call: ApiCall = async ({ method, path, headers, body }) => {
        const sent = { method, path: `/identity/v3${path}`, headers, body };
        const { status, text, headers: answered } = await client.send({}, sent);
        return { status, headers: answered, body: text.startsWith('{') ? JSON.parse(text) : text };
      };
      const { OS_USERNAME: username = '', OS_PASSWORD: password = '' } = openrc;
      const admin = { username, password, domain: 'Default', project: 'admin' };
      return harnessAt(`https://127.0.0.1:${port}/identity/v3`, admin, call, ca);
    },
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

/** The server writes it once it answers. */
async function written(path: string): Promise<string> {
  for (let tries = 0; tries < OPENRC_TRIES; tries += 1) {
    const text = await readFile(path, 'utf8').catch(() => undefined);
    if (text) return text;
    await systemClock.sleep(50);
  }
  throw new Error(`Nobody wrote ${path}`);
}

/** Debian's Keystone. */
export async function keystoneBackend(): Promise<IdentityBackend> {
  const keystone = await startKeystone();
  const { url, admin } = keystone;
  return {
    name: 'Keystone',
    async prepare(directory) {
      const credentialsFile = join(directory, 'keystone-openrc');
      const { username, password, domain, project } = keystone.service;
      const openrc = {
        ...{ OS_USERNAME: username, OS_PASSWORD: password, OS_USER_DOMAIN_NAME: domain },
        ...{ OS_PROJECT_NAME: project, OS_PROJECT_DOMAIN_NAME: domain },
      };
      await writeFile(credentialsFile, formatOpenrc(openrc), { mode: 0o600 });
      return { keystone: { url, credentialsFile, caFile: null, createsTenants: false } };
    },
    harness: () => harnessAt(url, admin, callTo(url)),
    [Symbol.asyncDispose]: () => keystone[Symbol.asyncDispose](),
  };
}

/** Both services are administered as any Keystone is. */
async function harnessAt(
  url: string,
  admin: KeystoneLogin,
  call: ApiCall,
  caCert?: string,
): Promise<IdentityHarness & { call: ApiCall }> {
  const { username, password, domain } = admin;
  const scope = { kind: 'system' as const };
  const credentials = { kind: 'password' as const, username, userDomain: domain, password, scope };
  const provider = createKeystoneProvider({ url, credentials, ...(caCert ? { caCert } : {}) });
  const advance = (ms: number) => systemClock.sleep(ms);
  return { ...(await createApiHarness({ provider, call, admin, advance })), call };
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
