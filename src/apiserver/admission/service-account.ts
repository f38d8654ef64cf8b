import { nameSuffix } from '../../base/random.ts';
import type { KubeObject } from '../../api/object.ts';
import { forbidden } from './chain.ts';
import type { AdmissionPlugin, AdmissionRequest } from './chain.ts';

interface VolumeMount {
  name: string;
  mountPath: string;
  readOnly?: boolean;
}

interface Container {
  volumeMounts?: VolumeMount[];
}

interface PodSpec {
  serviceAccountName?: string;
  serviceAccount?: string;
  automountServiceAccountToken?: boolean;
  imagePullSecrets?: { name: string }[];
  volumes?: { name: string; [source: string]: unknown }[];
  containers?: Container[];
  initContainers?: Container[];
}

interface ServiceAccount extends KubeObject {
  automountServiceAccountToken?: boolean;
  imagePullSecrets?: { name: string }[];
}

const MOUNT_PATH = '/var/run/secrets/kubernetes.io/serviceaccount';
const VOLUME_PREFIX = 'kube-api-access-';
/** An hour and a little, so that a token renewed each hour never runs out. */
const TOKEN_SECONDS = 3607;
const FILE_MODE = 0o644;
/** The default account of a new namespace is made by a controller, a moment after it. */
const ACCOUNT_WAIT_MS = 2_000;
const ACCOUNT_POLL_MS = 50;
const DEFAULT_ACCOUNT = 'default';

/** Every pod runs as a service account and finds its token where clients look for it. */
export const serviceAccount: AdmissionPlugin = {
  name: 'ServiceAccount',
  resources: ['pods'],
  operations: ['CREATE'],
  async prepare(request) {
    const name = accountName(request);
    if (name !== DEFAULT_ACCOUNT) return;
    const { clock } = request.server;
    const deadlineMs = clock.monotonicMs() + ACCOUNT_WAIT_MS;
    while (!lookUp(request, name) && namespaceExists(request)) {
      if (clock.monotonicMs() >= deadlineMs) return;
      await clock.sleep(ACCOUNT_POLL_MS);
    }
  },
  mutate(request) {
    const pod = request.object;
    const spec = (pod.spec ??= {}) as PodSpec;
    const name = accountName(request);
    spec.serviceAccountName = name;
    spec.serviceAccount = name;
    const account = lookUp(request, name);
    if (!account) {
      const path = `${request.namespace}/${name}`;
      const why = `error looking up service account ${path}: serviceaccount "${name}" not found`;
      throw forbidden(request, why);
    }
    const mayMount =
      spec.automountServiceAccountToken ?? account.automountServiceAccountToken ?? true;
    if (mayMount) mountToken(spec, request);
    if (!spec.imagePullSecrets?.length && account.imagePullSecrets?.length) {
      spec.imagePullSecrets = account.imagePullSecrets.map(({ name: secret }) => ({
        name: secret,
      }));
    }
  },
};

function accountName({ object }: AdmissionRequest): string {
  const spec = (object?.spec ?? {}) as PodSpec;
  return spec.serviceAccountName || spec.serviceAccount || DEFAULT_ACCOUNT;
}

function lookUp({ server, namespace }: AdmissionRequest, name: string): ServiceAccount | undefined {
  const key = { resource: 'serviceaccounts', namespace, name };
  return server.store.get(key)?.object as ServiceAccount | undefined;
}

function namespaceExists({ server, namespace }: AdmissionRequest): boolean {
  return server.store.get({ resource: 'namespaces', namespace: '', name: namespace }) !== undefined;
}

function mountToken(spec: PodSpec, request: AdmissionRequest): void {
  const containers = [...(spec.initContainers ?? []), ...(spec.containers ?? [])];
  const isMounted = ({ volumeMounts }: Container) =>
    volumeMounts?.some(({ mountPath }) => mountPath === MOUNT_PATH);
  const lacking = containers.filter((container) => !isMounted(container));
  if (lacking.length === 0) return;
  let name = spec.volumes?.find((volume) => isTokenVolume(volume))?.name;
  if (!name) {
    name = `${VOLUME_PREFIX}${nameSuffix(request.server.random)}`;
    spec.volumes = [...(spec.volumes ?? []), tokenVolume(name)];
  }
  for (const container of lacking) {
    const mount = { name, readOnly: true, mountPath: MOUNT_PATH };
    container.volumeMounts = [...(container.volumeMounts ?? []), mount];
  }
}

function isTokenVolume(volume: { name: string; projected?: unknown }): boolean {
  return volume.name.startsWith(VOLUME_PREFIX) && volume.projected !== undefined;
}

function tokenVolume(name: string) {
  const sources = [
    { serviceAccountToken: { expirationSeconds: TOKEN_SECONDS, path: 'token' } },
    { configMap: { name: 'kube-root-ca.crt', items: [{ key: 'ca.crt', path: 'ca.crt' }] } },
    {
      downwardAPI: {
        items: [
          { path: 'namespace', fieldRef: { apiVersion: 'v1', fieldPath: 'metadata.namespace' } },
        ],
      },
    },
  ];
  return { name, projected: { defaultMode: FILE_MODE, sources } };
}
