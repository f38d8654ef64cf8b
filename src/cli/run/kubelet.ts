import { systemClock } from '../../base/clock.ts';
import { createLog } from '../../base/log.ts';
import { systemRandom } from '../../base/random.ts';
import { runNodeAgent } from '../../kubelet/node-agent.ts';
import { readLocalJoin } from '../identities.ts';
import { UsageError } from '../errors.ts';
import type { ComponentContext } from '../run.ts';

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
      join: { server: join.url, token: join.token },
      hyperdSocket: paths.hyperdSocket,
      nodeName: config.nodeName,
      hostIp: config.address,
      kubeletPort: config.kubeletPort,
      // Pods do not reach the loopback address at which the server's own kubelet finds it.
      apiServer: config.server
        ? { host: server.hostname, port: Number(server.port) }
        : { host: config.address, port: config.apiPort },
      network: { id: 'default', cidr: '10.88.0.0/24', gateway: '10.88.0.1', mtu: 1500, nat: true },
      clock: systemClock,
      random: systemRandom,
      log: createLog({ component: 'kubelet' }),
      onReady: ready,
    },
    signal,
  );
}
