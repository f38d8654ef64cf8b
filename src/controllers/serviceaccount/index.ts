import { isStatus } from '../../api/status.ts';
import type { ConfigMap, Namespace, ServiceAccount } from '../../api/types.generated.ts';
import { runController } from '../../client/controller.ts';
import { createInformer } from '../../client/informer.ts';
import { CONFIG_MAPS, NAMESPACES, SERVICE_ACCOUNTS } from '../../client/resources.ts';
import { createWorkQueue } from '../../client/workqueue.ts';
import type { ControllerContext } from '../common/context.ts';

export const DEFAULT_ACCOUNT = 'default';
const ROOT_CA_CONFIG_MAP = 'kube-root-ca.crt';
const CA_KEY = 'ca.crt';

/** Gives every namespace its default service account and the certificate of the cluster's CA. */
export function runServiceAccountController(
  context: ControllerContext,
  options: { caCert: string },
): Promise<void> {
  const { client, informers, clock, random, log, signal } = context;
  const namespaces = informers.informer(NAMESPACES);
  const base = { client, clock, random, log, signal };
  // Informers of their own, for one name each: those of everything would hold all tenants' data.
  const accounts = createInformer({
    ...base,
    resource: SERVICE_ACCOUNTS,
    fieldSelector: `metadata.name=${DEFAULT_ACCOUNT}`,
  });
  const configMaps = createInformer({
    ...base,
    resource: CONFIG_MAPS,
    fieldSelector: `metadata.name=${ROOT_CA_CONFIG_MAP}`,
  });
  const queue = createWorkQueue(clock);
  const enqueue = ({ metadata }: Namespace) => queue.add(metadata.name ?? '');
  const enqueueSpace = ({ metadata }: ServiceAccount | ConfigMap) =>
    queue.add(metadata.namespace ?? '');
  namespaces.addHandler({ add: enqueue, update: enqueue });
  accounts.addHandler({ delete: enqueueSpace });
  configMaps.addHandler({ update: enqueueSpace, delete: enqueueSpace });

  const reconcile = async (namespace: string): Promise<void> => {
    const current = namespaces.get(undefined, namespace);
    if (!current || current.metadata.deletionTimestamp) return;
    if (!accounts.get(namespace, DEFAULT_ACCOUNT)) {
      await createUnlessThere(() =>
        client.create(SERVICE_ACCOUNTS, {
          apiVersion: 'v1',
          kind: 'ServiceAccount',
          metadata: { name: DEFAULT_ACCOUNT, namespace },
        }),
      );
    }
    const published = configMaps.get(namespace, ROOT_CA_CONFIG_MAP);
    if (!published) {
      await createUnlessThere(() =>
        client.create(CONFIG_MAPS, {
          apiVersion: 'v1',
          kind: 'ConfigMap',
          metadata: {
            name: ROOT_CA_CONFIG_MAP,
            namespace,
            annotations: {
              'kubernetes.io/description': 'CA certificate by which pods verify the API server',
            },
          },
          data: { [CA_KEY]: options.caCert },
        }),
      );
    } else if (published.data?.[CA_KEY] !== options.caCert) {
      await client.update(CONFIG_MAPS, { ...published, data: { [CA_KEY]: options.caCert } });
    }
  };
  return runController({
    name: 'serviceaccount',
    queue,
    reconcile,
    informers: [namespaces, accounts, configMaps],
    clock,
    log,
    signal,
  });
}

/** Somebody else made it, or the namespace began to end: both are as good. */
async function createUnlessThere(create: () => Promise<unknown>): Promise<void> {
  try {
    await create();
  } catch (error) {
    const isFine = isStatus(error, 'AlreadyExists') || isStatus(error, 'NotFound');
    if (!isFine) throw error;
  }
}
