import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { isIPv4 } from 'node:net';
import { parseJoinToken } from '../auth/bootstrap-tokens.ts';
import { dataDirectory, dataPaths } from './config.ts';
import type { ConfigOverrides } from './data.ts';
import { readConfig } from './data.ts';
import { UsageError } from './errors.ts';
import { bringUp } from './up.ts';
import type { MachineOptions } from './up.ts';

export interface JoinCommandOptions extends MachineOptions {
  /** Both are needed until the machine has joined, and are kept for later starts. */
  server?: string;
  token?: string;
}

/** Makes this machine a node of a cluster, or starts one that is. */
export async function joinNode(
  dataDir: string | undefined,
  options: JoinCommandOptions,
): Promise<void> {
  const { detach, server: url, token, ...overrides } = options;
  const stored = await readConfig(dataPaths(dataDirectory(dataDir)));
  if ((!url || !token) && (url || token || !stored)) {
    throw new UsageError(
      'Cannot join: --server and --token are both needed; "hypernetes token create" on the server ' +
        'prints the whole command.',
    );
  }
  const given: ConfigOverrides = overrides;
  if (url && token) {
    checkJoin(url, token);
    given.server = { url, token };
    if (stored?.server?.url !== url) given.address ??= await addressTowards(url);
  }
  await bringUp(dataDir, 'node', given, detach ?? false, 'node');
}

function checkJoin(url: string, token: string): void {
  if (URL.parse(url)?.protocol !== 'https:') {
    throw new UsageError(
      `Cannot join "${url}": --server must be a URL such as https://10.0.0.1:6443.`,
    );
  }
  try {
    parseJoinToken(token);
  } catch (error) {
    throw new UsageError(`${(error as Error).message}.`);
  }
}

/**
 * Which of its addresses this machine has on the way to the server, from the kernel's routes:
 * under that one the server finds it. Nothing is sent. Undefined where there is no way yet.
 */
async function addressTowards(url: string): Promise<string | undefined> {
  const { hostname, port } = new URL(url);
  const socket = createSocket('udp4');
  try {
    socket.connect(Number(port || 443), hostname);
    await once(socket, 'connect');
    const { address } = socket.address();
    return isIPv4(address) ? address : undefined;
  } catch {
    return undefined;
  } finally {
    socket.close();
  }
}
