import { LABEL, containerId, resourcesLabel } from './history.ts';
import type { Container, Pod, ResourceRequirements } from '../api/types.generated.ts';
import type { HyperContainerSpec, ImageStatus } from '../api/hyperd.ts';
import { containerEnvironment } from './environment.ts';
import { expand } from './expansion.ts';
import type { DownwardContext } from './field-ref.ts';
import type { ReferencedObjects } from './objects.ts';
import { processIdentity } from './security.ts';
import { serviceEnvironment } from './service-env.ts';
import type { ApiServerEndpoint } from './service-env.ts';
import { containerResources } from './sizes.ts';
import { containerMounts } from './volumes.ts';

/** Everything a container is started with, from its pod, its image and what they refer to. */
export interface ContainerSpecInput {
  container: Container;
  /** Of its own, or those that it had before a resize that is not done. */
  resources: ResourceRequirements | undefined;
  attempt: number;
  streak: number;
  image: ImageStatus;
  downward: DownwardContext;
  objects: ReferencedObjects;
  /** Undefined where there is no cluster, and so no Services. */
  apiServer: ApiServerEndpoint | undefined;
}

const DEFAULT_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/** @throws ContainerConfigError */
export async function containerSpec(input: ContainerSpecInput): Promise<HyperContainerSpec> {
  const { container, resources, image, downward } = input;
  const { pod } = downward;
  const { namespace = '', uid = '' } = pod.metadata;
  const { apiServer, objects } = input;
  const links = apiServer !== undefined && (pod.spec?.enableServiceLinks ?? true);
  const linked = links ? await objects.services(namespace) : [];
  const services = apiServer ? serviceEnvironment(linked, apiServer) : new Map<string, string>();
  const own = await containerEnvironment(container, services, downward, objects);
  const { tty = false } = container;
  return {
    id: containerId(uid, container.name, input.attempt),
    name: container.name,
    attempt: input.attempt,
    imageId: image.id,
    process: {
      argv: argv(container, image, own),
      env: environment(pod, image, own, tty),
      workingDir: container.workingDir || image.config.workingDir || '/',
      tty,
      ...processIdentity(pod, container, image),
    },
    stopSignal: container.lifecycle?.stopSignal ?? (image.config.stopSignal || 'TERM'),
    readOnlyRootfs: container.securityContext?.readOnlyRootFilesystem ?? false,
    mounts: containerMounts(container, own),
    resources: containerResources(resources),
    terminationMessagePath: container.terminationMessagePath ?? '/dev/termination-log',
    terminationMessageFromLog: container.terminationMessagePolicy === 'FallbackToLogsOnError',
    stdin: container.stdin ?? false,
    stdinOnce: container.stdinOnce ?? false,
    labels: {
      [LABEL.streak]: String(input.streak),
      [LABEL.resources]: resourcesLabel(resources),
    },
  };
}

/** `command` replaces the entry point, and with it the image's own arguments. */
function argv(
  container: Container,
  image: ImageStatus,
  variables: ReadonlyMap<string, string>,
): string[] {
  const command = (container.command ?? []).map((each) => expand(each, variables));
  const args = (container.args ?? []).map((each) => expand(each, variables));
  if (command.length > 0) return [...command, ...args];
  return [...image.config.entrypoint, ...(args.length > 0 ? args : image.config.command)];
}

function environment(
  pod: Pod,
  image: ImageStatus,
  own: ReadonlyMap<string, string>,
  tty: boolean,
): string[] {
  const all = new Map([
    ['PATH', DEFAULT_PATH],
    ['HOSTNAME', podHostname(pod)],
  ]);
  if (tty) all.set('TERM', 'xterm');
  for (const entry of image.config.env) {
    const equals = entry.indexOf('=');
    if (equals > 0) all.set(entry.slice(0, equals), entry.slice(equals + 1));
  }
  for (const [name, value] of own) all.set(name, value);
  return [...all].map(([name, value]) => `${name}=${value}`);
}

/** The kernel's limit of a host name, which Kubernetes cuts names to. */
const HOSTNAME_LENGTH_MAX = 63;

export function podHostname(pod: Pod): string {
  const name = pod.spec?.hostname || pod.metadata.name || 'pod';
  return name.slice(0, HOSTNAME_LENGTH_MAX).replace(/[-.]+$/, '');
}
