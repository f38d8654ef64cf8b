import { readFile } from 'node:fs/promises';
import type { IdentityProvider } from '../../api/identity.ts';
import type { Mount } from '../../apiserver/server/mounts.ts';
import type { Clock } from '../../base/clock.ts';
import { readFileIfExists, writeFileAtomic } from '../../base/files.ts';
import type { Log } from '../../base/log.ts';
import type { Random } from '../../base/random.ts';
import { createIdentityApi, isIdentityPath } from '../../identity/embedded/http/api.ts';
import { createEmbeddedProvider } from '../../identity/embedded/provider.ts';
import { openEmbeddedIdentity } from '../../identity/embedded/service.ts';
import { createKeystoneProvider } from '../../identity/keystone/provider.ts';
import type { Store } from '../../store/store.ts';
import type { DataPaths, KeystoneConfig, MachineConfig } from '../config.ts';
import { formatOpenrc, keystoneCredentials, parseOpenrc } from '../openrc.ts';

/** Where a server's people come from. */
export interface ServerIdentity {
  provider: IdentityProvider;
  mounts: Mount[];
  /** What is only needed once the server answers. */
  prepare(): Promise<void>;
  close(): Promise<void>;
}

export interface IdentityOptions {
  config: MachineConfig;
  paths: DataPaths;
  store: Store;
  clock: Clock;
  random: Random;
  log: Log;
}

/** The embedded identity service, or the Keystone that the configuration names. */
export function openIdentity(options: IdentityOptions): Promise<ServerIdentity> {
  const { keystone } = options.config;
  return keystone ? connectKeystone(keystone, options) : openEmbedded(options);
}

async function connectKeystone(
  { url, credentialsFile, caFile }: KeystoneConfig,
  { clock, random, log }: IdentityOptions,
): Promise<ServerIdentity> {
  const credentials = keystoneCredentials(parseOpenrc(await readFile(credentialsFile, 'utf8')));
  const caCert = caFile === null ? undefined : await readFile(caFile, 'utf8');
  const provider = createKeystoneProvider({
    ...{ url, credentials, clock, random, log },
    ...(caCert === undefined ? {} : { caCert }),
  });
  return {
    provider,
    mounts: [],
    prepare: () => Promise.resolve(),
    close: () => provider.close(),
  };
}

async function openEmbedded(options: IdentityOptions): Promise<ServerIdentity> {
  const { config, paths, store, clock, random, log } = options;
  const identity = await openEmbeddedIdentity({ store, clock, random, log });
  const provider = createEmbeddedProvider(identity);
  const kubernetes = `https://${config.address}:${config.apiPort}`;
  const baseUrl = `${kubernetes}/identity/v3`;
  const handle = createIdentityApi({ identity, log, baseUrl });
  return {
    provider,
    mounts: [{ serves: isIdentityPath, handle }],
    async prepare() {
      const made = await identity.bootstrap({ identity: baseUrl, kubernetes });
      const known = await readFileIfExists(paths.adminOpenrc);
      if (made.adminPassword === undefined && known !== undefined) return;
      // Who removes the file, or was stopped before it was written, gets a new password.
      const { adminPassword } =
        made.adminPassword === undefined ? await identity.recoverAdmin() : made;
      const openrc = formatOpenrc({
        OS_AUTH_URL: baseUrl,
        OS_CACERT: paths.caCert,
        OS_IDENTITY_API_VERSION: '3',
        OS_USERNAME: 'admin',
        OS_USER_DOMAIN_NAME: 'Default',
        OS_PASSWORD: adminPassword as string,
        OS_SYSTEM_SCOPE: 'all',
      });
      await writeFileAtomic(paths.adminOpenrc, openrc, { mode: 0o600 });
    },
    async close() {
      await provider.close();
      await identity.close();
    },
  };
}
