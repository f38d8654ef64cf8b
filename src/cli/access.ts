import { stat } from 'node:fs/promises';
import { createClient } from '../client/client.ts';
import type { Client } from '../client/client.ts';
import { createHttpsTransport } from '../client/https.ts';
import type { HttpsTransport } from '../client/https.ts';
import { loadKubeconfig } from '../client/kubeconfig.ts';
import { dataDirectory, dataPaths } from './config.ts';
import { UsageError } from './errors.ts';
import { resolveAddress } from './login/address.ts';
import { credentialContext } from './login/credential-command.ts';
import { currentToken } from './login/credential.ts';
import { currentLogin } from './login/current.ts';
import { kubeconfigPath } from './login/kubeconfig-file.ts';
import type { Keystone } from './login/keystone.ts';
import { openKeystone } from './login/keystone.ts';
import { openProfiles } from './login/profiles.ts';
import type { Profile } from './login/profiles.ts';
import { scopeToken } from './login/scope.ts';
import { proofOf, readVariables, scopeWish } from './login/sources.ts';
import { openTerminal } from './prompt.ts';

/** The data directory, and whether somebody named it: then they mean its administrator. */
export interface Place {
  dataDir: string | undefined;
  isNamed: boolean;
}

/** Options of every command that speaks to a cluster. */
export interface AccessFlags {
  kubeconfig?: string;
  context?: string;
  openrc?: string;
  json?: boolean;
}

/** The Kubernetes API as somebody; ends with the command. */
export interface Cluster {
  server: string;
  caCert: string;
  client: Client;
  transport: HttpsTransport;
  /** Where it comes from a login. */
  profile?: Profile;
}

/** The identity service as somebody. */
export interface People {
  keystone: Keystone;
  token: string;
}

const exists = async (path: string) => (await stat(path).catch(() => undefined)) !== undefined;

/**
 * Does something with the cluster: that of the kubeconfig's context, or on the server's machine its
 * administrator's, where there is no kubeconfig or `--data-dir` is given.
 */
export async function withCluster<T>(
  flags: AccessFlags,
  place: Place,
  action: (cluster: Cluster) => Promise<T>,
): Promise<T> {
  const cluster = await openCluster(flags, place);
  try {
    return await action(cluster);
  } finally {
    await cluster.transport.close();
  }
}

async function openCluster(flags: AccessFlags, place: Place): Promise<Cluster> {
  const path = await chooseKubeconfig(flags, place);
  const profile = await currentLogin(openProfiles(), path, flags.context);
  if (profile) {
    const { value: token } = await currentToken(profile, credentialContext(true));
    return { ...connect({ ...profile, token }), profile };
  }
  const access = await loadKubeconfig(path, flags.context);
  if (!access.token && !access.clientCert) {
    throw new UsageError(
      `Cannot use the kubeconfig "${path}": its context has no login of ours, token or certificate. ` +
        'Log in with "hypernetes login".',
    );
  }
  return connect(access);
}

function connect(access: {
  server: string;
  caCert: string;
  token?: string;
  clientCert?: string;
  clientKey?: string;
}): Cluster {
  const { server, caCert, token, clientCert, clientKey } = access;
  const transport = createHttpsTransport({ server, caCert, token, clientCert, clientKey });
  const client = createClient(transport, { userAgent: 'hypernetes' });
  return { server, caCert, client, transport };
}

async function chooseKubeconfig(flags: AccessFlags, place: Place): Promise<string> {
  const own = await kubeconfigPath(flags.kubeconfig);
  if (flags.kubeconfig) return own;
  const { adminKubeconfig } = dataPaths(dataDirectory(place.dataDir));
  const candidates = place.isNamed ? [adminKubeconfig, own] : [own, adminKubeconfig];
  for (const path of candidates) if (await exists(path)) return path;
  throw new UsageError(
    'Cannot find a cluster: log in with "hypernetes login", name a kubeconfig with --kubeconfig, or ' +
      "run this as root on the server's machine.",
  );
}

/**
 * Does something with the identity service: as who `--openrc` says, who has logged in, who the
 * variables `OS_…` say, or on the server's machine its administrator.
 */
export async function withPeople<T>(
  flags: AccessFlags,
  place: Place,
  action: (people: People) => Promise<T>,
): Promise<T> {
  const { adminOpenrc } = dataPaths(dataDirectory(place.dataDir));
  const isOnServer = await exists(adminOpenrc);
  if (flags.openrc) return asVariables(flags.openrc, action);
  if (place.isNamed && isOnServer) return asVariables(adminOpenrc, action);
  const profile = await currentLogin(openProfiles(), flags.kubeconfig, flags.context);
  if (profile) return asLogin(profile, action);
  if (process.env['OS_AUTH_URL']) return asVariables(undefined, action);
  if (isOnServer) return asVariables(adminOpenrc, action);
  throw new UsageError(
    'Cannot find an identity service: log in with "hypernetes login", or name a file of OS_… ' +
      'variables with --openrc.',
  );
}

async function asLogin<T>(profile: Profile, action: (people: People) => Promise<T>): Promise<T> {
  const { value: token } = await currentToken(profile, credentialContext(true));
  const keystone = openKeystone(profile.authUrl, profile.authCaCert);
  try {
    return await action({ keystone, token });
  } finally {
    keystone.close();
  }
}

async function asVariables<T>(
  openrc: string | undefined,
  action: (people: People) => Promise<T>,
): Promise<T> {
  const terminal = openTerminal();
  const variables = await readVariables(openrc);
  const profiles = await openProfiles().list();
  const address = await resolveAddress({}, { variables, profiles, terminal });
  const keystone = openKeystone(address.authUrl, address.authCaCert);
  try {
    const proof = await proofOf({}, variables, terminal);
    const first =
      proof.kind === 'token'
        ? await keystone.inspect(proof.token)
        : await keystone.authenticate(proof);
    const { value: token } = await scopeToken(
      keystone,
      first,
      scopeWish({}, {}, variables),
      terminal,
    );
    try {
      return await action({ keystone, token });
    } finally {
      // It was for this command alone; the first one ends what was made from it.
      if (proof.kind !== 'token') await keystone.revoke(first.value);
    }
  } finally {
    keystone.close();
  }
}
