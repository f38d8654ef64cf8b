import { createBootstrapToken, formatJoinToken } from '../auth/bootstrap-tokens.ts';
import { certificateSha256 } from '../auth/x509.ts';
import { systemClock } from '../base/clock.ts';
import { systemRandom } from '../base/random.ts';
import { createClient } from '../client/client.ts';
import { createHttpsTransport } from '../client/https.ts';
import { loadKubeconfig } from '../client/kubeconfig.ts';
import { SECRETS } from '../client/resources.ts';
import { DEFAULT_PORTS, dataDirectory, dataPaths } from './config.ts';
import { readConfig } from './data.ts';
import { parseDuration } from './duration.ts';
import { UsageError } from './errors.ts';

/** Makes a token good for one `--ttl`, and prints the command that uses it. */
export async function createToken(
  dataDir: string | undefined,
  options: { ttl: string },
): Promise<void> {
  const paths = dataPaths(dataDirectory(dataDir));
  const config = await readConfig(paths);
  if (config?.role !== 'server') {
    throw new UsageError(
      `Tokens are made on the server's machine; ${paths.root} is not a server's data.`,
    );
  }
  const lifetimeMs = parseDuration(options.ttl, '--ttl');
  const access = await loadKubeconfig(paths.adminKubeconfig);
  const transport = createHttpsTransport(access);
  try {
    const { bearerToken, secret } = createBootstrapToken({
      clock: systemClock,
      random: systemRandom,
      description: 'Made by "hypernetes token create".',
      lifetimeMs,
    });
    await createClient(transport, { userAgent: 'hypernetes' }).create(SECRETS, secret as never);
    const token = formatJoinToken(certificateSha256(access.caCert), bearerToken);
    const server = `https://${config.address}:${config.apiPort}`;
    const { registryPort } = config;
    const port = registryPort === DEFAULT_PORTS.registry ? '' : ` --registry-port ${registryPort}`;
    process.stdout.write(`hypernetes node --server ${server} --token ${token}${port}\n`);
  } finally {
    await transport.close();
  }
}
