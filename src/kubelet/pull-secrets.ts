import type { Pod } from '../api/types.generated.ts';
import type { PullImage } from '../api/hyperd.ts';
import type { ReferencedObjects } from './objects.ts';

/**
 * Registry credentials for a pod's images, from its imagePullSecrets and those of its service
 * account: `kubernetes.io/dockerconfigjson` and the older `kubernetes.io/dockercfg`.
 */
type Credentials = PullImage['credentials'];

interface AuthEntry {
  username?: string;
  password?: string;
  auth?: string;
}

/** Secrets that are tried for one image, and entries that are read of each. */
const SECRETS_MAX = 32;
const ENTRIES_MAX = 128;

export async function pullCredentials(
  pod: Pod,
  image: string,
  objects: ReferencedObjects,
): Promise<Credentials> {
  const namespace = pod.metadata.namespace ?? '';
  const account = pod.spec?.serviceAccountName || 'default';
  const ofAccount = (await objects.serviceAccount(namespace, account).catch(() => undefined))
    ?.imagePullSecrets;
  const named = [...(pod.spec?.imagePullSecrets ?? []), ...(ofAccount ?? [])];
  const names = [...new Set(named.map((each) => each.name ?? ''))].slice(0, SECRETS_MAX);
  const found: Credentials = [];
  for (const name of names) {
    // A secret that is not there is no error: the image may be public.
    const secret = name ? await objects.secret(namespace, name) : undefined;
    for (const [registry, entry] of readConfig(secret?.data ?? {})) {
      const credentials = matches(registry, image) ? decodeEntry(entry) : undefined;
      if (credentials) found.push(credentials);
    }
  }
  return found;
}

function readConfig(data: Record<string, string>): [string, AuthEntry][] {
  const text = data['.dockerconfigjson'] ?? data['.dockercfg'];
  if (text === undefined) return [];
  try {
    const config = JSON.parse(Buffer.from(text, 'base64').toString('utf8')) as Record<
      string,
      unknown
    >;
    const auths = '.dockerconfigjson' in data ? config['auths'] : config;
    if (typeof auths !== 'object' || auths === null) return [];
    return (Object.entries(auths) as [string, AuthEntry][]).slice(0, ENTRIES_MAX);
  } catch {
    return [];
  }
}

function decodeEntry(entry: AuthEntry): Credentials[number] | undefined {
  if (typeof entry !== 'object' || entry === null) return undefined;
  if (entry.username) return { username: entry.username, password: entry.password ?? '' };
  const decoded = Buffer.from(entry.auth ?? '', 'base64').toString('utf8');
  const colon = decoded.indexOf(':');
  if (colon < 1) return undefined;
  return { username: decoded.slice(0, colon), password: decoded.slice(colon + 1) };
}

const DOCKER_HUB = 'docker.io';

/** Whether an entry's key (`https://host/v1/`, `host:port/path`, `*.host`) covers the image. */
export function matches(registry: string, image: string): boolean {
  const bare = registry.replace(/^https?:\/\//, '').replace(/\/(v1|v2)?\/?$/, '');
  const [host = '', ...path] = bare.split('/');
  const target = splitImage(image);
  const hub = ['index.docker.io', 'registry-1.docker.io', DOCKER_HUB];
  const wanted = hub.includes(host) ? DOCKER_HUB : host;
  if (!hostMatches(wanted, target.host)) return false;
  const prefix = path.join('/');
  return prefix === '' || target.path === prefix || target.path.startsWith(`${prefix}/`);
}

function hostMatches(pattern: string, host: string): boolean {
  const parts = pattern.split('.');
  const labels = host.split('.');
  if (parts.length !== labels.length) return false;
  return parts.every((part, index) => part === '*' || part === labels[index]);
}

function splitImage(image: string): { host: string; path: string } {
  const slash = image.indexOf('/');
  const first = image.slice(0, slash);
  const isHost = slash > 0 && (/[.:]/.test(first) || first === 'localhost');
  if (!isHost) return { host: DOCKER_HUB, path: slash > 0 ? image : `library/${image}` };
  const host = first === 'index.docker.io' ? DOCKER_HUB : first;
  return { host, path: image.slice(slash + 1) };
}
