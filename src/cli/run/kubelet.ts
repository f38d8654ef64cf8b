import { systemClock } from '../../base/clock.ts';
import { createLog } from '../../base/log.ts';
import { systemRandom } from '../../base/random.ts';
import { JoinError } from '../../kubelet/bootstrap.ts';
import { runNodeAgent } from '../../kubelet/node-agent.ts';
import { readNodeDns } from '../../kubelet/resolv-conf.ts';
import { readLocalJoin } from '../identities.ts';
import { UsageError } from '../errors.ts';
import type { ComponentContext } from '../run.ts';
import { segment } from './segment.ts';

/** Servers and nodes of a rack may be switched on together. */
const CONNECT_PATIENCE_MS = 20_000;

export async function runKubelet({
  paths,
  config,
  signal,
  ready,
}: ComponentContext): Promise<void> {
  const join = config.server ?? (await readLocalJoin(paths));
  if (!join) throw new UsageError(`Nothing says how ${config.nodeName} joins the cluster.`);
  const server = new URL(join.url);
  await runNodeAgent(
    {
      directory: paths.node,
      join: {
        server: join.url,
        token: join.token,
        // The server of this machine is started at the same time.
        ...(config.server ? { connectPatienceMs: CONNECT_PATIENCE_MS } : {}),
      },
      hyperdSocket: paths.hyperdSocket,
      nodeName: config.nodeName,
      hostIp: config.address,
      kubeletPort: config.kubeletPort,
      maxPods: config.maxPods,
      // Pods do not reach the loopback address at which the server's own kubelet finds it.
      apiServer: config.server
        ? { host: server.hostname, port: Number(server.port || 443) }
        : { host: config.address, port: config.apiPort },
      // All pods are on one network so far: the node's part of the cluster's range.
      network: (podCidr) => segment('default', podCidr),
      nodeDns: readNodeDns,
      clock: systemClock,
      random: systemRandom,
      log: createLog({ component: 'kubelet' }),
      onReady: ready,
    },
    signal,
  ).catch((error: Error) => {
    throw error instanceof JoinError ? new UsageError(`${error.message}.`) : error;
  });
}
