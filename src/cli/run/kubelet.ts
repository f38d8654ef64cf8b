import { systemClock } from '../../base/clock.ts';
import { createLog } from '../../base/log.ts';
import { systemRandom } from '../../base/random.ts';
import { createHttpsTransport } from '../../client/https.ts';
import { loadKubeconfig } from '../../client/kubeconfig.ts';
import { createKubelet } from '../../kubelet/kubelet.ts';
import type { ComponentContext } from '../run.ts';

export async function runKubelet({ paths, config, signal, ready }: ComponentContext): Promise<void> {
  const log = createLog({ component: 'kubelet' });
  const access = await loadKubeconfig(paths.adminKubeconfig);
  const kubelet = createKubelet({
    nodeName: config.nodeName,
    hostIp: config.address,
    kubeletPort: config.kubeletPort,
    transport: createHttpsTransport(access),
    hyperd: paths.hyperdSocket,
    apiServer: { host: config.address, port: config.apiPort },
    network: { id: 'default', cidr: '10.88.0.0/24', gateway: '10.88.0.1', mtu: 1500, nat: true },
    clock: systemClock,
    random: systemRandom,
    log,
  });
  ready();
  await kubelet.start(signal);
}
