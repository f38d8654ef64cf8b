import { dirname, resolve } from 'node:path';
import { readFileIfExists } from '../base/files.ts';

/** What a kubeconfig's current context says, with files read in. */
export interface ClusterAccess {
  server: string;
  caCert: string;
  clientCert?: string;
  clientKey?: string;
  token?: string;
  /** @default default */
  namespace: string;
}

interface Entry {
  name?: string;
  [section: string]: unknown;
}

type Fields = Record<string, string | undefined>;

/**
 * Reads a kubeconfig file and resolves its current context (or the one named).
 *
 * @throws Error naming the file and what is missing in it
 */
export async function loadKubeconfig(path: string, contextName?: string): Promise<ClusterAccess> {
  const text = await readFileIfExists(path);
  if (text === undefined) throw new Error(`Cannot read kubeconfig "${path}": it does not exist`);
  // Loaded here because most processes never read a kubeconfig.
  const { parse } = await import('yaml');
  const config = (parse(text) ?? {}) as Record<string, unknown>;
  const pick = (section: string, kind: string, name: string | undefined): Fields => {
    const entries = (config[section] ?? []) as Entry[];
    const entry = entries.find((candidate) => candidate.name === name);
    if (!entry) throw new Error(`Cannot use kubeconfig "${path}": there is no ${kind} "${name}"`);
    return (entry[kind] ?? {}) as Fields;
  };
  const current = contextName ?? (config['current-context'] as string | undefined);
  const context = pick('contexts', 'context', current);
  const cluster = pick('clusters', 'cluster', context.cluster);
  const user = pick('users', 'user', context.user);
  const readPart = async (fields: Fields, name: string): Promise<string | undefined> => {
    const data = fields[`${name}-data`];
    if (data) return Buffer.from(data, 'base64').toString('utf8');
    const file = fields[name];
    if (!file) return undefined;
    const content = await readFileIfExists(resolve(dirname(path), file));
    if (content === undefined) {
      throw new Error(`Cannot use kubeconfig "${path}": ${name} "${file}" does not exist`);
    }
    return content;
  };
  const caCert = await readPart(cluster, 'certificate-authority');
  if (!cluster.server || !caCert) {
    throw new Error(
      `Cannot use kubeconfig "${path}": cluster "${context.cluster}" needs server and ` +
        'certificate-authority-data',
    );
  }
  const clientCert = await readPart(user, 'client-certificate');
  const clientKey = await readPart(user, 'client-key');
  return {
    server: cluster.server,
    caCert,
    ...(clientCert && clientKey ? { clientCert, clientKey } : {}),
    ...(user.token ? { token: user.token } : {}),
    namespace: context.namespace ?? 'default',
  };
}
