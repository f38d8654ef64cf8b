import { openAuditLog } from '../../apiserver/audit/log.ts';
import { createApiServer } from '../../apiserver/server.ts';
import { startUsageMeter } from '../../apiserver/usage/meter.ts';
import { defaultRbacObjects } from '../../auth/default-roles.ts';
import { createCaSigner, ensurePki } from '../../auth/pki.ts';
import { tenantPartition } from '../../auth/tenant-scope.ts';
import type { UserInfo } from '../../api/auth.ts';
import type { KubeObject } from '../../api/object.ts';
import { systemClock } from '../../base/clock.ts';
import { createLog } from '../../base/log.ts';
import { systemRandom } from '../../base/random.ts';
import { createClient } from '../../client/client.ts';
import type { Client } from '../../client/client.ts';
import { startControllers } from '../../controllers/index.ts';
import { runScheduler } from '../../scheduler/scheduler.ts';
import { openSqliteStore } from '../../store/sqlite.ts';
import type { Store } from '../../store/store.ts';
import { readLocalJoin, serverHosts } from '../identities.ts';
import type { ComponentContext } from '../run.ts';
import { createAccess } from './access.ts';
import { openIdentity } from './identity.ts';
import { measureUsage } from './usage.ts';

const API_SERVER: UserInfo = { ...componentUser('system:apiserver'), groups: ['system:masters'] };
const SCHEDULER: UserInfo = componentUser('system:kube-scheduler');
const CONTROLLERS: UserInfo = componentUser('system:kube-controller-manager');

/** API server, scheduler and controllers in one process. */
export async function runServer({ paths, config, signal, ready }: ComponentContext): Promise<void> {
  const log = createLog({ component: 'server' });
  const clock = systemClock;
  const random = systemRandom;
  const pki = await ensurePki(paths.pki, { hosts: serverHosts(config), clock, random });
  const store = await openSqliteStore({
    ...{ path: paths.storeFile, clock, random, log },
    partitionOf: tenantPartition,
  });
  const identity = await openIdentity({ config, paths, store, clock, random, log });
  const { provider } = identity;
  const audit = openAuditLog({ directory: paths.audit, clock, random, log });
  let self: Client | undefined;
  const shared = { config, pki, store, provider, clock, random, log };
  const access = createAccess({ ...shared, self: () => self });
  const usage = startUsageMeter({ store, tenants: access.tenants, clock, log });
  const server = await createApiServer({
    store,
    clock,
    random,
    log,
    ...access,
    kubelet: { ca: pki.caCert, cert: pki.kubeletClientCert, key: pki.kubeletClientKey },
    advertise: { host: config.address, port: config.apiPort },
    serviceCidr: config.serviceCidr,
    audit,
    usage,
    mounts: identity.mounts,
    bootstrapObjects: [...defaultRbacObjects(), ...(await localToken(store, paths))],
  });
  self = createClient(server.loopback(API_SERVER), { userAgent: 'apiserver' });
  await server.listen({
    host: '0.0.0.0',
    port: config.apiPort,
    tls: { cert: pki.serverCert, key: pki.serverKey, clientCa: pki.caCert },
  });
  ready();
  const common = { clock, random, log, signal };
  const schedulerClient = createClient(server.loopback(SCHEDULER), { userAgent: 'kube-scheduler' });
  await Promise.all([
    identity.prepare(),
    runScheduler({ ...common, client: schedulerClient }),
    measureUsage({ ...common, server, store, meter: usage }),
    startControllers({
      ...common,
      transport: server.loopback(CONTROLLERS),
      identity: identity.provider,
      signer: createCaSigner({ caCert: pki.caCert, caKey: pki.caKey, clock, random }),
      clusterCidr: config.clusterCidr,
    }),
  ]);
  await server.close();
  await Promise.all([audit.close(), usage.close()]);
  await identity.close();
  await store.close();
}

/** The Secret with which the local kubelet joins, as long as it has not. */
async function localToken(store: Store, paths: ComponentContext['paths']): Promise<KubeObject[]> {
  const local = await readLocalJoin(paths);
  if (!local) return [];
  const { name = '', namespace = '' } = local.secret.metadata;
  return store.get({ resource: 'secrets', namespace, name }) ? [] : [local.secret];
}

function componentUser(name: string): UserInfo {
  return { name, uid: '', groups: ['system:authenticated'], extra: {} };
}
