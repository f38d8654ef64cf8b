import { joinCluster } from './bootstrap.ts';
import type { JoinOptions } from './bootstrap.ts';
import { createHyperdClient } from '../client/hyperd.ts';
import { createKubelet } from './kubelet.ts';
import type { KeyPair } from './certificates.ts';
import type { KubeletOptions } from './kubelet.ts';
import { createKubeletServer } from './server/server.ts';
import { systemClock } from '../base/clock.ts';

/** A whole node agent: joins the cluster, runs the kubelet and serves the API server's streams. */
export interface NodeAgentOptions extends Omit<KubeletOptions, 'transport' | 'hyperd'> {
  /** Where certificates and keys are kept. */
  directory: string;
  /** The API server and the join token. */
  join: Pick<JoinOptions, 'server' | 'token' | 'connectPatienceMs'>;
  hyperdSocket: string;
  /** Called when the node has joined, its server listens and it is Ready. */
  onReady?: () => void;
}

const KUBELET_PORT = 10_250;

/** Runs until the signal aborts. @throws JoinError where the cluster refuses the machine */
export async function runNodeAgent(options: NodeAgentOptions, signal: AbortSignal): Promise<void> {
  const { nodeName, hostIp, log } = options;
  const clock = options.clock ?? systemClock;
  const port = options.kubeletPort ?? KUBELET_PORT;
  const { directory, join } = options;
  const hosts = [nodeName, hostIp];
  const identity = await joinCluster({ directory, ...join, nodeName, hosts, clock, log }, signal);
  const hyperd = createHyperdClient(options.hyperdSocket);
  const { transport } = identity;
  const kubelet = createKubelet({ ...options, kubeletPort: port, transport, hyperd });
  const server = createKubeletServer({
    pods: kubelet.pods,
    findPod: (namespace, name) => kubelet.findPod(namespace, name),
    hyperd,
    nodeName,
    clock,
    log,
  });
  const running = kubelet.start(signal);
  running.catch(() => {});
  const serve = async () => {
    // The cluster signs names and addresses that the Node object has.
    await Promise.race([kubelet.registered, running]);
    if (signal.aborted) return;
    const tls = { ...(await identity.serving(signal)), ca: identity.caCert };
    server.setCertificate(tls);
    await server.listen(port);
    await Promise.race([kubelet.ready, running]);
    if (!signal.aborted) options.onReady?.();
    const replace = (pair: KeyPair) => server.setCertificate({ ...pair, ca: identity.caCert });
    await identity.keepFresh(replace, signal);
  };
  try {
    await Promise.all([running, serve()]);
  } finally {
    await server.close();
    await identity.transport.close();
    hyperd.close();
  }
}
