import type {
  CreatePod,
  HyperContainerSpec,
  HyperPodSpec,
  HyperVolume,
  HyperdInfo,
  ImageStatus,
  PortMapping,
} from '../../api/hyperd.ts';
import type { Container, Pod } from '../../api/types.generated.ts';
import { containerSpec } from '../../kubelet/container-spec.ts';
import type { ReferencedObjects } from '../../kubelet/objects.ts';
import { sandboxSpec } from '../../kubelet/sandbox-spec.ts';
import { UsageError } from '../errors.ts';

/** What of a pod is not in its manifest. */
export interface PodRequest {
  pod: Pod;
  /** Of each container, by its name. */
  images: ReadonlyMap<string, ImageStatus>;
  info: HyperdInfo;
  volumes: HyperVolume[];
  ports: PortMapping[];
  whenDone: NonNullable<HyperPodSpec['whenDone']>;
  start: boolean;
}

const POD_ID = /^[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?$/;

/** Of pods that no cluster has; the owners of a cluster's have other names. */
const OWNER = 'local';

/** There is no API server to ask. */
const NO_OBJECTS: ReferencedObjects = {
  configMap: async () => undefined,
  secret: async () => undefined,
  serviceAccount: async () => undefined,
  services: async () => [],
};

/**
 * A pod as hyperd is told of it: what the kubelet would say of the same manifest, without a
 * cluster round it. Its id is its name.
 *
 * @throws UsageError, ContainerConfigError
 */
export async function podRequest(request: PodRequest): Promise<CreatePod> {
  const { pod, info, volumes, ports, whenDone, start } = request;
  const { name = '', namespace = '', labels = {} } = pod.metadata;
  if (!POD_ID.test(name)) {
    throw new UsageError(
      `Cannot use "${name}" as a pod's name: want 1 to 64 of lower-case letters, digits and "-".`,
    );
  }
  const { network, dns } = info.defaults;
  const machine = { cpuCount: info.machine.cpuCount, vmmOverheadMib: info.overhead.memoryMib };
  const defaults = { clusterDomain: '', clusterDns: [], nodeDns: dns };
  const spec = sandboxSpec(pod, 0, 0, volumes, network, machine, defaults);
  const containers: HyperContainerSpec[] = [];
  for (const container of pod.spec?.containers ?? []) {
    containers.push(await specOf(container, request));
  }
  return {
    spec: { ...spec, id: name, owner: OWNER, namespace, labels, ports, whenDone },
    containers,
    start,
  };
}

async function specOf(
  container: Container,
  { pod, images, info }: PodRequest,
): Promise<HyperContainerSpec> {
  const image = images.get(container.name);
  if (!image) throw new UsageError(`Container "${container.name}" has no image.`);
  const { cpuCount, memoryBytes } = info.machine;
  const node = { cpuMillis: cpuCount * 1000, memoryBytes };
  const spec = await containerSpec({
    ...{ container, resources: container.resources, image, attempt: 0, streak: 0 },
    downward: { pod, podIp: '', hostIp: '', node },
    objects: NO_OBJECTS,
    apiServer: undefined,
  });
  if (spec.process.argv.length === 0) {
    throw new UsageError(
      `Container "${container.name}" has nothing to run: neither its image nor you name a command.`,
    );
  }
  return { ...spec, id: container.name, labels: {} };
}
