import { readFile } from 'node:fs/promises';
import { parse } from 'yaml';
import type { RegistryCredential } from './store.ts';

/**
 * The node's configuration of registries, in the form of k3s' `registries.yaml`
 * (docs/registries.md). A registry that is not mentioned is reached at `https://<registry>/v2`.
 */
export interface RegistriesConfig {
  /** By registry as it stands in references; `*` for all others. */
  mirrors: Map<string, { endpoints: URL[] }>;
  /** By host and optional port of an endpoint. */
  hosts: Map<string, HostConfig>;
}

export interface HostConfig {
  credential: RegistryCredential | undefined;
  tls: HostTls | undefined;
}

export interface HostTls {
  ca: string | undefined;
  cert: string | undefined;
  key: string | undefined;
  insecureSkipVerify: boolean;
}

/** Where a registry's API is, and how it is spoken to. */
export interface Endpoint {
  /** Ends with the version: `https://registry-1.docker.io/v2`. */
  base: URL;
  /** Whether it is the registry that the reference names, and not a mirror of it. */
  isOrigin: boolean;
  /** Whether the operator named this host, who may then point at the node itself. */
  isConfigured: boolean;
  host: HostConfig | undefined;
}

/** A configuration that cannot be used. The message names the file and the field. */
export class RegistriesConfigError extends Error {
  override name = 'RegistriesConfigError';
}

/** Docker Hub's API is not at the name that references use. */
const API_HOSTS: Record<string, string> = { 'docker.io': 'registry-1.docker.io' };
const CONFIG_BYTES_MAX = 1 << 20;
const ENDPOINTS_MAX = 16;
/** As user name it marks the password as an identity token, which Docker's credentials do too. */
export const IDENTITY_TOKEN_USER = '<token>';

export function emptyRegistriesConfig(): RegistriesConfig {
  return { mirrors: new Map(), hosts: new Map() };
}

/**
 * Reads the configuration with the certificates that it names. No file is an empty one.
 * @throws RegistriesConfigError
 */
export async function loadRegistriesConfig(path: string): Promise<RegistriesConfig> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return emptyRegistriesConfig();
    throw new RegistriesConfigError(`Cannot read ${path}: ${(error as Error).message}`);
  }
  if (text.length > CONFIG_BYTES_MAX) {
    throw new RegistriesConfigError(
      `Cannot read ${path}: it is larger than ${CONFIG_BYTES_MAX} bytes`,
    );
  }
  let document: unknown;
  try {
    document = parse(text, { maxAliasCount: 100 });
  } catch (error) {
    throw new RegistriesConfigError(`Cannot parse ${path}: ${(error as Error).message}`);
  }
  return parseRegistriesConfig(
    document,
    async (file, field) => {
      try {
        return await readFile(file, 'utf8');
      } catch (error) {
        throw new RegistriesConfigError(
          `Cannot read ${path}: ${field}: ${(error as Error).message}`,
        );
      }
    },
    path,
  );
}

type ReadText = (file: string, field: string) => Promise<string>;

/**
 * @param document parsed YAML or JSON
 * @param readText reads a certificate or key that the field names
 * @param source names the document in messages
 * @throws RegistriesConfigError
 */
export async function parseRegistriesConfig(
  document: unknown,
  readText: ReadText,
  source = 'registries',
): Promise<RegistriesConfig> {
  const read = createReader(source);
  const top = read.object(document, 'the file', ['mirrors', 'configs']);
  const config = emptyRegistriesConfig();
  for (const [registry, value] of Object.entries(read.object(top['mirrors'], 'mirrors'))) {
    const endpoints = parseMirror(read, value, `mirrors["${registry}"]`);
    config.mirrors.set(registry, { endpoints });
  }
  for (const [host, value] of Object.entries(read.object(top['configs'], 'configs'))) {
    config.hosts.set(host, await parseHost(read, value, `configs["${host}"]`, readText));
  }
  return config;
}

/** Takes fields apart, or says which one is not what it should be. */
interface Reader {
  fail(field: string, want: string): never;
  /** An object is empty where the field is. With `keys`, others are refused. */
  object(value: unknown, field: string, keys?: string[]): Record<string, unknown>;
  text(value: unknown, field: string): string | undefined;
}

function createReader(source: string): Reader {
  const fail = (field: string, want: string): never => {
    throw new RegistriesConfigError(`Cannot use ${source}: ${field} is not ${want}`);
  };
  return {
    fail,
    object(value, field, keys) {
      if (value === undefined || value === null) return {};
      if (typeof value !== 'object' || Array.isArray(value)) fail(field, 'a mapping');
      const other = keys && Object.keys(value).find((key) => !keys.includes(key));
      if (other !== undefined) fail(`${field}.${other}`, `known (known: ${keys?.join(', ')})`);
      return value as Record<string, unknown>;
    },
    text(value, field) {
      if (value === undefined || value === null) return undefined;
      return typeof value === 'string' && value !== '' ? value : fail(field, 'a text');
    },
  };
}

function parseMirror(read: Reader, value: unknown, field: string): URL[] {
  const list = read.object(value, field, ['endpoint'])['endpoint'] ?? [];
  if (!Array.isArray(list) || list.length > ENDPOINTS_MAX) {
    return read.fail(`${field}.endpoint`, `a list of at most ${ENDPOINTS_MAX} URLs`);
  }
  return list.map((item: unknown, i) => {
    const at = `${field}.endpoint[${i}]`;
    const base = parseEndpoint(read.text(item, at) ?? '');
    return base ?? read.fail(at, 'an http or https URL without user or query');
  });
}

async function parseHost(
  read: Reader,
  value: unknown,
  field: string,
  readText: ReadText,
): Promise<HostConfig> {
  const entry = read.object(value, field, ['auth', 'tls']);
  const authKeys = ['username', 'password', 'auth', 'identity_token'];
  const auth = Object.entries(read.object(entry['auth'], `${field}.auth`, authKeys)).map(
    ([key, item]) => [key, read.text(item, `${field}.auth.${key}`)],
  );
  const tlsKeys = ['ca_file', 'cert_file', 'key_file', 'insecure_skip_verify'];
  const tls = read.object(entry['tls'], `${field}.tls`, tlsKeys);
  const file = async (key: string): Promise<string | undefined> => {
    const path = read.text(tls[key], `${field}.tls.${key}`);
    return path === undefined ? undefined : readText(path, `${field}.tls.${key}`);
  };
  const skip = tls['insecure_skip_verify'] ?? false;
  if (typeof skip !== 'boolean') {
    return read.fail(`${field}.tls.insecure_skip_verify`, 'true or false');
  }
  const [ca, cert, key] = [await file('ca_file'), await file('cert_file'), await file('key_file')];
  return {
    credential: readCredential(Object.fromEntries(auth), () =>
      read.fail(`${field}.auth`, 'a complete credential'),
    ),
    tls: entry['tls'] === undefined ? undefined : { ca, cert, key, insecureSkipVerify: skip },
  };
}

function readCredential(
  auth: Record<string, string | undefined>,
  fail: () => never,
): RegistryCredential | undefined {
  const identityToken = auth['identity_token'];
  if (identityToken !== undefined)
    return { username: IDENTITY_TOKEN_USER, password: identityToken };
  const packed = auth['auth'];
  if (packed !== undefined) {
    const text = Buffer.from(packed, 'base64').toString('utf8');
    const colon = text.indexOf(':');
    if (colon <= 0) fail();
    return { username: text.slice(0, colon), password: text.slice(colon + 1) };
  }
  const { username, password } = auth;
  if (username === undefined && password === undefined) return undefined;
  if (username === undefined || password === undefined) fail();
  return { username: username as string, password: password as string };
}

/** A URL without path means the API's usual place. */
function parseEndpoint(text: string): URL | undefined {
  const url = URL.parse(text);
  const isHttp = url?.protocol === 'http:' || url?.protocol === 'https:';
  if (!url || !isHttp || url.username !== '' || url.password !== '' || url.search || url.hash) {
    return undefined;
  }
  url.pathname = url.pathname === '/' ? '/v2' : url.pathname.replace(/\/+$/, '');
  return url;
}

/** The places to ask for images of a registry, in order: its mirrors, then itself. */
export function endpointsOf(config: RegistriesConfig, registry: string): Endpoint[] {
  const apiHost = API_HOSTS[registry] ?? registry;
  const mirrors = (config.mirrors.get(registry) ?? config.mirrors.get('*'))?.endpoints ?? [];
  const isOrigin = (base: URL) =>
    [registry, apiHost].some(
      (host) => machineOf(new URL(`${base.protocol}//${host}`)) === machineOf(base),
    );
  const toEndpoint = (base: URL, isConfigured: boolean): Endpoint => ({
    base,
    isOrigin: isOrigin(base),
    isConfigured,
    host: hostConfig(config, base),
  });
  const endpoints = mirrors.map((base) => toEndpoint(base, true));
  if (endpoints.some((endpoint) => endpoint.isOrigin)) return endpoints;
  const origin = toEndpoint(new URL(`https://${apiHost}/v2`), false);
  origin.isConfigured = origin.host !== undefined || config.hosts.has(registry);
  origin.host ??= config.hosts.get(registry);
  return [...endpoints, origin];
}

/** `localhost` is the same machine under another name. */
function machineOf(url: URL): string {
  return url.host.replace(/^localhost(?=:|$)/, '127.0.0.1');
}

/**
 * The configuration with the registry inside hyperd added, under the names that this machine
 * has for itself, unless the operator has said something else of them.
 */
export function withEmbeddedRegistry(config: RegistriesConfig, port: number): RegistriesConfig {
  const endpoints = [new URL(`http://127.0.0.1:${port}/v2`)];
  const own = ['localhost', '127.0.0.1'].map((host) => [`${host}:${port}`, { endpoints }] as const);
  return { hosts: config.hosts, mirrors: new Map([...own, ...config.mirrors]) };
}

/** What the operator said of the host that a URL names. */
export function hostConfig(config: RegistriesConfig, base: URL): HostConfig | undefined {
  const port = base.port || (base.protocol === 'https:' ? '443' : '80');
  return config.hosts.get(base.host) ?? config.hosts.get(`${base.hostname}:${port}`);
}
