import { readFile } from 'node:fs/promises';
import { describeError } from '../../base/log.ts';
import { UsageError } from '../errors.ts';
import type { Openrc } from '../openrc.ts';
import type { Terminal } from '../prompt.ts';
import type { Profile } from './profiles.ts';
import { trustedCa } from './server-ca.ts';

/** Options that say where a cluster and its identity service are. */
export interface AddressFlags {
  server?: string;
  ca?: string;
  caFingerprint?: string;
  authUrl?: string;
  authCa?: string;
}

/** Where to log in. The server is unknown until the identity service's catalogue names it. */
export interface Address {
  server: string | undefined;
  caCert: string | undefined;
  authUrl: string;
  /** Undefined: the CAs that Node comes with. */
  authCaCert: string | undefined;
}

/** The embedded identity service is at this path of the server's own port. */
const EMBEDDED_PATH = '/identity/v3';
const EMBEDDED_URL = /^\/identity(?:\/v3)?\/?$/;

export interface AddressOptions {
  variables: Openrc;
  profiles: Profile[];
  terminal: Terminal | undefined;
}

/** @throws UsageError when nothing says where, or whom to trust there */
export async function resolveAddress(
  flags: AddressFlags,
  options: AddressOptions,
): Promise<Address> {
  const { variables, profiles } = options;
  const givenAuthUrl = flags.authUrl ?? variables['OS_AUTH_URL'];
  const server =
    (flags.server && parseServer(flags.server)) ??
    embeddedServer(givenAuthUrl) ??
    (givenAuthUrl === undefined ? onlyServer(profiles) : undefined);
  const authUrl = givenAuthUrl ?? `${server}${EMBEDDED_PATH}`;
  const isOneOrigin = server !== undefined && new URL(authUrl).origin === server;
  const caFile = flags.ca ?? (isOneOrigin ? variables['OS_CACERT'] : undefined);
  const caCert = server && (await serverCa(server, { ...flags, ca: caFile }, options));
  if (isOneOrigin) return { server, caCert, authUrl, authCaCert: caCert };
  const authCa = flags.authCa ?? variables['OS_CACERT'];
  const authCaCert = authCa === undefined ? undefined : await readCaFile(authCa);
  return { server, caCert, authUrl, authCaCert };
}

export function serverCa(
  server: string,
  flags: AddressFlags,
  { profiles, terminal }: Omit<AddressOptions, 'variables'>,
): Promise<string> {
  const knownCa = profiles.find((profile) => profile.server === server)?.caCert;
  return trustedCa(server, {
    ...{ caFile: flags.ca, fingerprint: flags.caFingerprint, knownCa, terminal },
  });
}

/** `https://host:port`; the scheme may be left out. */
export function parseServer(text: string): string {
  const url = URL.parse(text.includes('://') ? text : `https://${text}`);
  const refuse = (why: string) => new UsageError(`Cannot use the server "${text}": ${why}.`);
  if (!url) throw refuse('it is not a URL, such as https://10.0.0.1:6443');
  if (url.protocol !== 'https:') throw refuse('only https is spoken');
  if (url.username || url.password) throw refuse('credentials may not be in the URL');
  if (url.pathname !== '/' || url.search || url.hash) throw refuse('it may not have a path');
  return url.origin;
}

function embeddedServer(authUrl: string | undefined): string | undefined {
  const url = authUrl === undefined ? undefined : URL.parse(authUrl);
  if (authUrl !== undefined && !url) {
    throw new UsageError(`Cannot use the identity service "${authUrl}": it is not a URL.`);
  }
  return url?.protocol === 'https:' && EMBEDDED_URL.test(url.pathname) ? url.origin : undefined;
}

/** Who has logged in on one server means that one. */
function onlyServer(profiles: Profile[]): string {
  const servers = [...new Set(profiles.map(({ server }) => server))];
  if (servers.length === 1) return servers[0] ?? '';
  throw new UsageError(
    servers.length === 0
      ? 'Cannot log in: no server is named. Say where with --server https://ADDRESS:6443.'
      : `Cannot log in: name one of ${servers.join(', ')} with --server.`,
  );
}

async function readCaFile(path: string): Promise<string> {
  return readFile(path, 'utf8').catch((error: unknown) => {
    throw new UsageError(`Cannot read the CA "${path}": ${describeError(error)}`);
  });
}

/** The address of the Kubernetes API, by the identity service's list of services. */
export function serverInCatalog(catalog: unknown[]): string | undefined {
  const services = catalog as { type?: unknown; endpoints?: unknown }[];
  const kubernetes = services.find((service) => service?.type === 'kubernetes');
  const endpoints = (kubernetes?.endpoints ?? []) as { interface?: unknown; url?: unknown }[];
  const found = endpoints.find((endpoint) => endpoint?.interface === 'public')?.url;
  return typeof found === 'string' ? parseServer(found) : undefined;
}
