import type { IdentityProvider } from '../api/identity.ts';
import type { Clock } from '../base/clock.ts';
import type { Log } from '../base/log.ts';
import { describeError } from '../base/log.ts';
import type { Random } from '../base/random.ts';
import type { CaSigner } from '../auth/pki.ts';
import { createClient } from '../client/client.ts';
import { createEventRecorder } from '../client/events.ts';
import { createInformerFactory } from '../client/informer.ts';
import {
  CERTIFICATE_REQUESTS,
  CLUSTER_ROLES,
  CONTROLLER_REVISIONS,
  CRON_JOBS,
  DAEMON_SETS,
  DEPLOYMENTS,
  ENDPOINT_SLICES,
  DISRUPTION_BUDGETS,
  ENDPOINTS,
  JOBS,
  NAMESPACES,
  NODES,
  PERSISTENT_VOLUME_CLAIMS,
  PODS,
  REPLICA_SETS,
  RESOURCE_QUOTAS,
  SERVICES,
  STATEFUL_SETS,
  TENANTS,
} from '../client/resources.ts';
import type { Transport } from '../client/transport.ts';
import { runBootstrapTokenCleaner } from './bootstraptoken/index.ts';
import { runCertificateController } from './certificates/index.ts';
import { runClusterRoleController } from './clusterrole/index.ts';
import { runCronJobController } from './cronjob/index.ts';
import { runDaemonSetController } from './daemonset/index.ts';
import { runDeploymentController } from './deployment/index.ts';
import { runDisruptionController } from './disruption/index.ts';
import { runEndpointsController } from './endpoints/index.ts';
import { runGarbageCollector } from './garbagecollector/index.ts';
import { runJobController } from './job/index.ts';
import { runNamespaceController } from './namespace/index.ts';
import { runNodeIpamController } from './node/ipam.ts';
import { runNodeLifecycleController } from './node/lifecycle.ts';
import { runPodGarbageCollector } from './node/pod-gc.ts';
import { runReplicaSetController } from './replicaset/index.ts';
import { runResourceQuotaController } from './resourcequota/index.ts';
import { runServiceAccountController } from './serviceaccount/index.ts';
import { runStatefulSetController } from './statefulset/index.ts';
import { runTenantController } from './tenant/index.ts';
import type { ControllerContext } from './common/context.ts';

export interface ControllersOptions {
  /** As the user `system:kube-controller-manager`. */
  transport: Transport;
  /** Signs approved certificate requests; its CA is published to every namespace. */
  signer: CaSigner;
  clock: Clock;
  random: Random;
  log: Log;
  signal: AbortSignal;
  /** Where tenants have their projects; absent: tenants are told by groups alone. */
  identity?: IdentityProvider;
  /** @default 10.88.0.0/16 */
  clusterCidr?: string;
  /** @default 24 */
  nodeMaskSize?: number;
}

const COMPONENT = 'kube-controller-manager';
const DEFAULT_CLUSTER_CIDR = '10.88.0.0/16';
const DEFAULT_NODE_MASK_SIZE = 24;

/** Kinds of which the controllers hold whole objects; the collector then needs no copy. */
const HELD = [
  PODS,
  REPLICA_SETS,
  DEPLOYMENTS,
  DAEMON_SETS,
  STATEFUL_SETS,
  CONTROLLER_REVISIONS,
  JOBS,
  CRON_JOBS,
  NODES,
  NAMESPACES,
  CLUSTER_ROLES,
  CERTIFICATE_REQUESTS,
  SERVICES,
  ENDPOINTS,
  ENDPOINT_SLICES,
  PERSISTENT_VOLUME_CLAIMS,
  RESOURCE_QUOTAS,
  DISRUPTION_BUDGETS,
  TENANTS,
];

/**
 * Starts every controller on one set of shared informers. Returns at once.
 *
 * @returns a promise that resolves when the signal has aborted and all of them have ended; it
 *   rejects when one of them breaks, which is for the process to end on
 */
export function startControllers(options: ControllersOptions): Promise<void> {
  const { clock, random, log, signal, signer } = options;
  const client = createClient(options.transport, { userAgent: COMPONENT });
  const base = { client, clock, random, log, signal };
  const informers = createInformerFactory(base);
  /** Events name the controller that they come from, as Kubernetes' do. */
  const as = (component: string): ControllerContext => ({
    ...base,
    informers,
    events: createEventRecorder({ ...base, component }),
  });
  const clusterCidr = options.clusterCidr ?? DEFAULT_CLUSTER_CIDR;
  const nodeMaskSize = options.nodeMaskSize ?? DEFAULT_NODE_MASK_SIZE;
  const controllers: Promise<void>[] = [
    runServiceAccountController(as('serviceaccount-controller'), { caCert: signer.caCert }),
    runNodeIpamController(as('node-ipam-controller'), { clusterCidr, nodeMaskSize }),
    runNodeLifecycleController(as('node-controller')),
    runCertificateController(as('certificate-controller'), { signer }),
    runBootstrapTokenCleaner(as('token-cleaner')),
    runReplicaSetController(as('replicaset-controller')),
    runDeploymentController(as('deployment-controller')),
    runStatefulSetController(as('statefulset-controller')),
    runDaemonSetController(as('daemonset-controller')),
    runJobController(as('job-controller')),
    runCronJobController(as('cronjob-controller')),
    runResourceQuotaController(as('resourcequota-controller')),
    runDisruptionController(as('controllermanager')),
    runEndpointsController(as('endpoint-controller')),
    runNamespaceController(as('namespace-controller')),
    runTenantController(as('tenant-controller'), { identity: options.identity }),
    runClusterRoleController(as('clusterrole-aggregation-controller')),
    runPodGarbageCollector(as('pod-garbage-collector')),
    runGarbageCollector(as('garbage-collector-controller'), HELD),
  ];
  return Promise.all(controllers).then(
    () => undefined,
    (error: unknown) => {
      log.error('A controller broke', { error: describeError(error) });
      throw error;
    },
  );
}
