import type {
  Container,
  DownwardAPIVolumeFile,
  KeyToPath,
  Pod,
  Volume,
  VolumeProjection,
} from '../api/types.generated.ts';
import type { ContainerMount, HyperVolume, VolumeFiles } from '../api/hyperd.ts';
import { ContainerConfigError, UnsupportedError } from './errors.ts';
import { expand } from './expansion.ts';
import { fieldValue, resourceValue } from './field-ref.ts';
import type { DownwardContext } from './field-ref.ts';
import { findContainer } from './environment.ts';
import type { ReferencedObjects } from './objects.ts';
import { amountOf } from './quantity.ts';
import type { TokenSource } from './tokens.ts';

/** Volumes of a pod: what hyperd is told of them, and the content of those made of files. */
export interface VolumeContext {
  downward: DownwardContext;
  objects: ReferencedObjects;
  tokens: TokenSource;
}

export type FileList = VolumeFiles['files'];

const MODE_DEFAULT = 0o644;
const MIB = 1 << 20;
/** One volume's files, as hyperd accepts them. */
const VOLUME_BYTES_MAX = 8 << 20;
const EMPTY_DIR_KEYS = new Set(['name', 'emptyDir']);
const FILE_SOURCES = ['configMap', 'secret', 'projected', 'downwardAPI'] as const;

/** Whether the volume's content comes from the API, as files that hyperd writes. */
export function isFileVolume(volume: Volume): boolean {
  return FILE_SOURCES.some((source) => volume[source] !== undefined);
}

/** @throws UnsupportedError naming the first thing that a pod in a VM cannot have here */
export function refuseUnsupported(pod: Pod): void {
  const spec = pod.spec;
  const flags = { hostNetwork: 'host network', hostPID: 'host PID', hostIPC: 'host IPC' } as const;
  for (const [field, words] of Object.entries(flags)) {
    if (!spec?.[field as keyof typeof flags]) continue;
    throw new UnsupportedError(
      `spec.${field} is true: a pod in a virtual machine cannot share the ${words} namespace`,
    );
  }
  for (const volume of spec?.volumes ?? []) {
    if (isFileVolume(volume) || volume.emptyDir !== undefined) continue;
    const kind = Object.keys(volume).find((key) => !EMPTY_DIR_KEYS.has(key)) ?? 'no source';
    throw new UnsupportedError(
      `volume "${volume.name}" has source ${kind}: supported are emptyDir, ${FILE_SOURCES.join(', ')}`,
    );
  }
  for (const container of [...(spec?.initContainers ?? []), ...(spec?.containers ?? [])]) {
    const probes = [container.livenessProbe, container.readinessProbe, container.startupProbe];
    if (probes.some((probe) => probe?.grpc)) {
      throw new UnsupportedError(`container "${container.name}" has a gRPC probe: not supported`);
    }
    if (!container.volumeDevices?.length) continue;
    throw new UnsupportedError(`container "${container.name}" has volumeDevices: not supported`);
  }
}

/** Everything hyperd has to know of the volumes at the pod's start, with their first content. */
export async function podVolumes(context: VolumeContext): Promise<HyperVolume[]> {
  const { pod } = context.downward;
  return Promise.all(
    (pod.spec?.volumes ?? []).map(async (volume): Promise<HyperVolume> => {
      const { name, emptyDir } = volume;
      if (emptyDir) {
        const sizeLimitMib = Math.ceil((amountOf(emptyDir.sizeLimit) ?? 0) / MIB);
        const type = emptyDir.medium === 'Memory' ? 'memory' : 'scratch';
        return { name, type, sizeLimitMib };
      }
      const files = await volumeFiles(volume, context);
      return { name, type: 'files', content: { version: 1, files } };
    }),
  );
}

/**
 * The files of a volume as they should be now, sorted by path.
 * @throws ContainerConfigError FailedMount where something named is not there
 */
export async function volumeFiles(volume: Volume, context: VolumeContext): Promise<FileList> {
  const source = volume.projected;
  const projections: VolumeProjection[] = source
    ? (source.sources ?? [])
    : [
        {
          ...(volume.configMap ? { configMap: volume.configMap } : {}),
          ...(volume.secret
            ? { secret: { ...volume.secret, name: volume.secret.secretName ?? '' } }
            : {}),
          ...(volume.downwardAPI ? { downwardAPI: volume.downwardAPI } : {}),
        },
      ];
  const mode =
    source?.defaultMode ??
    volume.configMap?.defaultMode ??
    volume.secret?.defaultMode ??
    volume.downwardAPI?.defaultMode ??
    MODE_DEFAULT;
  const byPath = new Map<string, FileList[number]>();
  let size = 0;
  for (const projection of projections) {
    for (const file of await projectionFiles(projection, mode, volume, context)) {
      size += file.content.length * 0.75;
      byPath.set(file.path, file);
    }
  }
  if (size > VOLUME_BYTES_MAX) {
    throw mountError(volume, `content has more than ${VOLUME_BYTES_MAX} bytes`);
  }
  const { fsGroup } = context.downward.pod.spec?.securityContext ?? {};
  const files = [...byPath.values()].sort((a, b) => (a.path < b.path ? -1 : 1));
  if (fsGroup === undefined) return files;
  // The group of the pod can read what its owner can, as Kubernetes' ownership change gives it.
  const shared = (mode: number) => mode | ((mode & 0o600) >> 3);
  return files.map((file) => ({ ...file, gid: fsGroup, mode: shared(file.mode) }));
}

async function projectionFiles(
  projection: VolumeProjection,
  mode: number,
  volume: Volume,
  context: VolumeContext,
): Promise<FileList> {
  const namespace = context.downward.pod.metadata.namespace ?? '';
  const { configMap, secret, downwardAPI, serviceAccountToken } = projection;
  if (projection.clusterTrustBundle) {
    throw new UnsupportedError(
      `volume "${volume.name}" projects a clusterTrustBundle: not supported`,
    );
  }
  if (configMap) {
    const name = configMap.name ?? '';
    const object = await context.objects.configMap(namespace, name);
    if (!object && !configMap.optional) throw mountError(volume, `configmap "${name}" not found`);
    const data = { ...object?.binaryData, ...encodeValues(object?.data) };
    return selectKeys(
      data,
      configMap,
      mode,
      volume,
      `configmap references non-existent config key`,
    );
  }
  if (secret) {
    const name = secret.name ?? '';
    const object = await context.objects.secret(namespace, name);
    if (!object && !secret.optional) throw mountError(volume, `secret "${name}" not found`);
    return selectKeys(
      object?.data ?? {},
      secret,
      mode,
      volume,
      'references non-existent secret key',
    );
  }
  if (downwardAPI) {
    return (downwardAPI.items ?? []).map((item) => downwardFile(item, mode, volume, context));
  }
  if (serviceAccountToken) {
    const token = await context.tokens.token(context.downward.pod, {
      audience: serviceAccountToken.audience ?? '',
      expirationSeconds: serviceAccountToken.expirationSeconds ?? 3600,
    });
    const owner = commonUser(context.downward.pod);
    return [
      {
        path: serviceAccountToken.path,
        content: Buffer.from(token).toString('base64'),
        ...(owner === undefined ? { mode } : { mode: 0o600, uid: owner }),
      },
    ];
  }
  return [];
}

/** The user that all containers run as, where they agree on one: the token is its alone then. */
function commonUser(pod: Pod): number | undefined {
  const { securityContext, containers = [], initContainers = [] } = pod.spec ?? {};
  const users = [...containers, ...initContainers].map(
    (each) => each.securityContext?.runAsUser ?? securityContext?.runAsUser,
  );
  return new Set(users).size === 1 ? users[0] : undefined;
}

function selectKeys(
  data: Record<string, string>,
  source: { items?: KeyToPath[]; optional?: boolean },
  mode: number,
  volume: Volume,
  missingKey: string,
): FileList {
  if (!source.items) {
    return Object.entries(data).map(([path, content]) => ({ path, mode, content }));
  }
  const files: FileList = [];
  for (const item of source.items) {
    const content = Object.hasOwn(data, item.key) ? data[item.key] : undefined;
    if (content !== undefined) files.push({ path: item.path, mode: item.mode ?? mode, content });
    else if (!source.optional) throw mountError(volume, `${missingKey}: ${item.key}`);
  }
  return files;
}

function encodeValues(data: Record<string, string> | undefined): Record<string, string> {
  const encode = ([key, value]: [string, string]) =>
    [key, Buffer.from(value, 'utf8').toString('base64')] as const;
  return Object.fromEntries(Object.entries(data ?? {}).map(encode));
}

function downwardFile(
  item: DownwardAPIVolumeFile,
  mode: number,
  volume: Volume,
  context: VolumeContext,
): FileList[number] {
  const { fieldRef, resourceFieldRef } = item;
  const owner = findContainer(context.downward.pod, resourceFieldRef?.containerName);
  const value = fieldRef
    ? fieldValue(fieldRef.fieldPath, context.downward)
    : resourceFieldRef && owner
      ? resourceValue(resourceFieldRef.resource, resourceFieldRef.divisor, owner, context.downward)
      : undefined;
  if (value === undefined) throw mountError(volume, `item "${item.path}" cannot be resolved`);
  const content = Buffer.from(value, 'utf8').toString('base64');
  return { path: item.path, mode: item.mode ?? mode, content };
}

/** @throws ContainerConfigError where a subPathExpr leaves the volume or stays unresolved */
export function containerMounts(
  container: Container,
  variables: ReadonlyMap<string, string>,
): ContainerMount[] {
  return (container.volumeMounts ?? []).map((mount) => {
    const subPath = mount.subPathExpr
      ? expand(mount.subPathExpr, variables)
      : (mount.subPath ?? '');
    if (subPath.startsWith('/') || subPath.split('/').includes('..')) {
      const subject = `volumeMount "${mount.name}" of container "${container.name}"`;
      const message = `failed to prepare subPath for ${subject}`;
      throw new ContainerConfigError('CreateContainerConfigError', message);
    }
    return {
      volume: mount.name,
      path: mount.mountPath,
      subPath,
      readOnly: mount.readOnly ?? false,
    };
  });
}

function mountError(volume: Volume, message: string): ContainerConfigError {
  const text = `MountVolume.SetUp failed for volume "${volume.name}" : ${message}`;
  return new ContainerConfigError('FailedMount', text);
}
