import { createClient } from '../src/client/client.ts';
import type { Client } from '../src/client/client.ts';
import { createHttpsTransport } from '../src/client/https.ts';
import type { HttpsTransport } from '../src/client/https.ts';
import { loadKubeconfig } from '../src/client/kubeconfig.ts';
import type { ClusterAccess } from '../src/client/kubeconfig.ts';
import { NAMESPACES } from '../src/client/resources.ts';
import { nameSuffix, systemRandom } from '../src/base/random.ts';
import type { DataPaths, MachineConfig } from '../src/cli/config.ts';
import { queryStatus } from '../src/cli/control.ts';
import { readConfig } from '../src/cli/data.ts';
import { UsageError } from '../src/cli/errors.ts';
import { withHyperd } from '../src/cli/local-pods.ts';
import { up } from '../src/cli/up.ts';

/** A running cluster on this machine, and a namespace of the benchmark's own. */
export interface BenchContext {
  paths: DataPaths;
  config: MachineConfig;
  access: ClusterAccess;
  transport: HttpsTransport;
  client: Client;
  namespace: string;
  accelerator: string;
  /** Release of the node's default kernel. */
  kernel: string;
}

/** Starts a cluster if none runs, and ends it again in that case. */
export async function withCluster<T>(
  paths: DataPaths,
  run: (context: BenchContext) => Promise<T>,
): Promise<T> {
  const wasRunning = (await queryStatus(paths.supervisorSocket)) !== undefined;
  if (!wasRunning) await up(paths.root, { detach: true });
  const config = await readConfig(paths);
  if (!config) throw new UsageError(`There is no cluster on ${paths.root}.`);
  const access = await loadKubeconfig(paths.adminKubeconfig);
  const transport = createHttpsTransport(access);
  const client = createClient(transport, { userAgent: 'hypernetes-bench' });
  const namespace = `bench-${nameSuffix(systemRandom)}`;
  try {
    const info = await withHyperd(paths.hyperdSocket, (hyperd) => hyperd.info());
    const { accelerator, kernelVersion: kernel } = info;
    await client.create(NAMESPACES, {
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: { name: namespace },
    });
    return await run({ paths, config, access, transport, client, namespace, accelerator, kernel });
  } finally {
    await client.delete(NAMESPACES, { name: namespace }).catch(() => {});
    await transport.close();
    if (!wasRunning) await (await import('../src/cli/down.ts')).down(paths.root, {});
  }
}
