import { readFile } from 'node:fs/promises';
import type { HyperVolume, PortMapping } from '../../api/hyperd.ts';
import { parseJson } from '../../api/json.ts';
import { applyDefaults } from '../../api/schema/defaults.ts';
import { builtinTable } from '../../api/schema/table.ts';
import { strictProblems, structuralFailure, structure } from '../../api/schema/validate.ts';
import { validateCreate } from '../../api/schema/validation/validation.ts';
import { invalid } from '../../api/status.ts';
import type { Pod } from '../../api/types.generated.ts';
import { YAML_BYTES_MAX, parseYaml } from '../../api/yaml.ts';
import { describeError } from '../../base/log.ts';
import { podVolumes } from '../../kubelet/volumes.ts';
import type { VolumeContext } from '../../kubelet/volumes.ts';
import { UsageError } from '../errors.ts';

/** A pod file: a Kubernetes v1 Pod, in YAML or JSON, as far as it needs no API server. */
export interface PodFile {
  pod: Pod;
  volumes: HyperVolume[];
  ports: PortMapping[];
}

/**
 * What may be in it, by the path of the object; `[]` are the items of a list. What is not here is
 * refused by its name: it would have no effect. An object that is named with `*` may have anything.
 */
const FIELDS: Record<string, string[]> = {
  '': ['apiVersion', 'kind', 'metadata', 'spec'],
  metadata: ['name', 'namespace', 'labels', 'annotations'],
  'metadata.labels': ['*'],
  'metadata.annotations': ['*'],
  spec: [
    ...['containers', 'volumes', 'hostname', 'hostAliases', 'dnsPolicy', 'dnsConfig'],
    ...['shareProcessNamespace', 'securityContext', 'resources', 'restartPolicy'],
  ],
  'spec.dnsConfig': ['*'],
  'spec.hostAliases[]': ['*'],
  'spec.resources': ['*'],
  'spec.securityContext': [
    ...['runAsUser', 'runAsGroup', 'runAsNonRoot', 'supplementalGroups', 'fsGroup'],
    ...['seccompProfile', 'sysctls'],
  ],
  'spec.securityContext.seccompProfile': ['type'],
  'spec.securityContext.sysctls[]': ['*'],
  'spec.volumes[]': ['name', 'emptyDir'],
  'spec.volumes[].emptyDir': ['medium', 'sizeLimit'],
  'spec.containers[]': [
    ...['name', 'image', 'imagePullPolicy', 'command', 'args', 'env', 'workingDir', 'ports'],
    ...['resources', 'securityContext', 'stdin', 'stdinOnce', 'tty', 'volumeMounts'],
    ...['terminationMessagePath', 'terminationMessagePolicy'],
  ],
  'spec.containers[].env[]': ['name', 'value'],
  'spec.containers[].ports[]': ['name', 'containerPort', 'hostPort', 'hostIP', 'protocol'],
  'spec.containers[].resources': ['limits', 'requests'],
  'spec.containers[].resources.limits': ['*'],
  'spec.containers[].resources.requests': ['*'],
  'spec.containers[].securityContext': [
    ...['runAsUser', 'runAsGroup', 'runAsNonRoot', 'privileged', 'capabilities'],
    ...['readOnlyRootFilesystem', 'allowPrivilegeEscalation', 'seccompProfile'],
  ],
  'spec.containers[].securityContext.capabilities': ['*'],
  'spec.containers[].securityContext.seccompProfile': ['type'],
  'spec.containers[].volumeMounts[]': ['name', 'mountPath', 'readOnly', 'subPath', 'subPathExpr'],
};

const TYPE = 'io.k8s.api.core.v1.Pod';

/** @param path `-` is the standard input. @throws UsageError, StatusError */
export async function readPodFile(path: string): Promise<PodFile> {
  const text = await readText(path);
  return parsePodFile(text, path === '-' ? 'the standard input' : path);
}

/** @param source names it in messages. @throws UsageError, StatusError */
export async function parsePodFile(text: string, source: string): Promise<PodFile> {
  const { value, duplicates } = read(text, source);
  const refused = refusedField(value, '');
  if (refused) throw new UsageError(`Cannot use ${source}: ${refused}.`);
  const table = builtinTable();
  const row = table.rows().find(({ type }) => type === TYPE);
  if (!row) throw new RangeError(`the table has no ${TYPE}`);
  const { name = '' } = (value as { metadata?: { name?: string } }).metadata ?? {};
  const findings = structure(table, TYPE, value);
  const failure = structuralFailure(row, name, findings);
  if (failure) throw failure;
  const [problem] = strictProblems(duplicates, findings.unknown);
  if (problem) throw new UsageError(`Cannot use ${source}: ${problem}.`);
  const namespaced = {
    ...findings.value,
    metadata: { namespace: 'default', ...findings.value.metadata },
  };
  const pod = applyDefaults(row, namespaced) as Pod;
  const causes = validateCreate(row, pod);
  if (causes.length > 0) throw invalid('', 'Pod', name, causes);
  return {
    pod,
    ports: hostPorts(pod),
    volumes: await podVolumes({ downward: { pod } } as VolumeContext),
  };
}

async function readText(path: string): Promise<string> {
  if (path !== '-') {
    return readFile(path, 'utf8').catch((error: Error) => {
      throw new UsageError(`Cannot read the pod file: ${error.message}.`);
    });
  }
  let text = '';
  for await (const chunk of process.stdin.setEncoding('utf8')) {
    text += chunk;
    if (text.length > YAML_BYTES_MAX) break;
  }
  return text;
}

function read(text: string, source: string): { value: unknown; duplicates: string[] } {
  try {
    const parsed = text.trimStart().startsWith('{') ? parseJson(text) : parseYaml(text);
    const { apiVersion, kind } = (parsed.value ?? {}) as { apiVersion?: unknown; kind?: unknown };
    if (apiVersion === 'v1' && kind === 'Pod') return parsed;
  } catch (error) {
    throw new UsageError(`Cannot read ${source}: ${describeError(error)}.`);
  }
  throw new UsageError(`Cannot use ${source}: it is not a Pod of apiVersion v1.`);
}

/** The first field that a pod without a cluster cannot have, and why. */
function refusedField(value: unknown, path: string): string | undefined {
  if (Array.isArray(value)) {
    return value
      .map((item) => refusedField(item, `${path}[]`))
      .find((found) => found !== undefined);
  }
  const known = FIELDS[path];
  if (typeof value !== 'object' || value === null || !known || known.includes('*'))
    return undefined;
  if (
    path === 'spec' &&
    !['Never', undefined].includes((value as { restartPolicy?: string }).restartPolicy)
  ) {
    return 'spec.restartPolicy is not Never: hyperd does not start containers again';
  }
  for (const [field, inner] of Object.entries(value)) {
    const at = path === '' ? field : `${path}.${field}`;
    if (!known.includes(field)) return `${at} is not supported without a cluster`;
    const found = refusedField(inner, at);
    if (found) return found;
  }
  return undefined;
}

function hostPorts(pod: Pod): PortMapping[] {
  const ports = (pod.spec?.containers ?? []).flatMap(({ ports: own = [] }) => own);
  return ports
    .filter(({ hostPort }) => hostPort !== undefined && hostPort > 0)
    .map(({ hostPort = 0, hostIP, containerPort, protocol = 'TCP' }) => {
      if (protocol !== 'TCP') {
        throw new UsageError(`Cannot map port ${hostPort}: only TCP is mapped, it is ${protocol}.`);
      }
      return { hostAddress: hostIP || '0.0.0.0', hostPort, guestPort: containerPort };
    });
}
