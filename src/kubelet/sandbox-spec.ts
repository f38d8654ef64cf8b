import { LABEL, sandboxId } from './history.ts';
import { ownerOfTenant } from '../api/holdings.ts';
import type { Pod, PodSpec } from '../api/types.generated.ts';
import { POD_TENANT_ANNOTATION } from '../api/tenancy.ts';
import type { HyperPodSpec, HyperVolume } from '../api/hyperd.ts';
import { KERNEL_ANNOTATION } from '../api/kernels.ts';
import { podHostname } from './container-spec.ts';
import { podSize } from './sizes.ts';
import type { NodeSize } from './sizes.ts';

/** What every pod of the node is given beside what its own spec says. */
export interface SandboxDefaults {
  clusterDomain: string;
  /** The cluster's DNS servers; empty where there is none yet, then the node's are used. */
  clusterDns: string[];
  nodeDns: HyperPodSpec['dns'];
}

const OPERATOR = 'operator';
const NAMESERVERS_MAX = 3;
const SEARCHES_MAX = 32;

export function sandboxSpec(
  pod: Pod,
  number: number,
  streak: number,
  volumes: HyperVolume[],
  network: HyperPodSpec['network'],
  node: NodeSize,
  defaults: SandboxDefaults,
): HyperPodSpec {
  const { namespace = '', name = '', uid = '' } = pod.metadata;
  const spec = pod.spec ?? { containers: [] };
  const fileBytes = volumeFileBytes(volumes);
  const subdomain = spec.subdomain;
  // Admission has written it there, from wherever it comes.
  const kernel = pod.metadata.annotations?.[KERNEL_ANNOTATION];
  return {
    id: sandboxId(uid, number),
    namespace,
    name,
    owner: podOwner(pod),
    hostname: podHostname(pod),
    domain: subdomain ? `${subdomain}.${namespace}.svc.${defaults.clusterDomain}` : '',
    ...(kernel === undefined ? {} : { kernel }),
    ...podSize(spec, fileBytes, node),
    network,
    dns: podDns(pod, defaults),
    hostAliases: (spec.hostAliases ?? []).map((alias) => ({
      ip: alias.ip,
      hostnames: alias.hostnames ?? [],
    })),
    sysctls: Object.fromEntries(
      (spec.securityContext?.sysctls ?? []).map((each) => [each.name, each.value]),
    ),
    shareProcessNamespace: spec.shareProcessNamespace ?? false,
    volumes,
    labels: {
      [LABEL.podUid]: uid,
      [LABEL.podNamespace]: namespace,
      [LABEL.podName]: name,
      [LABEL.sandbox]: String(number),
      [LABEL.streak]: String(streak),
      [LABEL.resources]: resourcesByName(spec),
    },
  };
}

/** What the VM was made for, as it was wanted then. */
function resourcesByName({ containers, initContainers = [] }: PodSpec): string {
  const all = [...initContainers, ...containers];
  return JSON.stringify(Object.fromEntries(all.map((each) => [each.name, each.resources ?? {}])));
}

/** Pods of one tenant may share a template; what is of no tenant is the operator's. */
function podOwner({ metadata }: Pod): string {
  const tenant = metadata.annotations?.[POD_TENANT_ANNOTATION];
  return tenant === undefined ? OPERATOR : ownerOfTenant(tenant);
}

/** Of the files that lie in the guest's memory. */
export function volumeFileBytes(volumes: HyperVolume[]): number {
  return volumes.reduce((sum, each) => sum + contentBytes(each), 0);
}

function contentBytes(volume: HyperVolume): number {
  if (volume.type !== 'files') return 0;
  return volume.content.files.reduce((sum, file) => sum + file.content.length * 0.75, 0);
}

/** `dnsPolicy`, then `dnsConfig` on top of it. */
function podDns(pod: Pod, defaults: SandboxDefaults): HyperPodSpec['dns'] {
  const { dnsPolicy = 'ClusterFirst', dnsConfig } = pod.spec ?? {};
  const base = basicDns(dnsPolicy, pod.metadata.namespace ?? '', defaults);
  const extra = (dnsConfig?.options ?? []).map((option) =>
    option.value ? `${option.name}:${option.value}` : (option.name ?? ''),
  );
  const overridden = new Set((dnsConfig?.options ?? []).map((option) => option.name));
  const kept = base.options.filter((option) => !overridden.has(option.split(':')[0]));
  const unique = (list: string[]) => [...new Set(list)];
  return {
    nameservers: unique([...base.nameservers, ...(dnsConfig?.nameservers ?? [])]).slice(
      0,
      NAMESERVERS_MAX,
    ),
    searches: unique([...base.searches, ...(dnsConfig?.searches ?? [])]).slice(0, SEARCHES_MAX),
    options: [...kept, ...extra],
  };
}

function basicDns(
  policy: string,
  namespace: string,
  defaults: SandboxDefaults,
): HyperPodSpec['dns'] {
  if (policy === 'None') return { nameservers: [], searches: [], options: [] };
  if (policy === 'Default' || defaults.clusterDns.length === 0) return defaults.nodeDns;
  const domain = defaults.clusterDomain;
  return {
    nameservers: defaults.clusterDns,
    searches: [`${namespace}.svc.${domain}`, `svc.${domain}`, domain, ...defaults.nodeDns.searches],
    options: ['ndots:5'],
  };
}
