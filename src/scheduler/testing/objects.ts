import type { Node, Pod, PodSpec, Taint } from '../../api/types.generated.ts';

/** Short ways to write the objects of scheduler tests. */
export interface PodOptions {
  nodeName?: string;
  cpu?: string;
  memory?: string;
  labels?: Record<string, string>;
  namespace?: string;
  phase?: string;
  spec?: Partial<PodSpec>;
}

export function makePod(name: string, options: PodOptions = {}): Pod {
  const { nodeName, cpu, memory, labels = {}, namespace = 'default', phase = 'Pending' } = options;
  const requests = { ...(cpu ? { cpu } : {}), ...(memory ? { memory } : {}) };
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace, uid: `uid-${name}`, labels },
    spec: {
      containers: [{ name: 'main', image: 'image', resources: { requests } }],
      ...(nodeName ? { nodeName } : {}),
      ...options.spec,
    },
    status: { phase },
  };
}

export interface NodeOptions {
  cpu?: string;
  memory?: string;
  pods?: string;
  labels?: Record<string, string>;
  taints?: Taint[];
  unschedulable?: boolean;
  overheadBytes?: number;
}

export function makeNode(name: string, options: NodeOptions = {}): Node {
  const { cpu = '4', memory = '8Gi', pods = '110', labels = {}, taints, unschedulable } = options;
  const annotations: Record<string, string> = options.overheadBytes
    ? { 'hypernetes.io/vm-overhead-memory': String(options.overheadBytes) }
    : {};
  return {
    apiVersion: 'v1',
    kind: 'Node',
    metadata: { name, labels: { 'kubernetes.io/hostname': name, ...labels }, annotations },
    spec: { ...(taints ? { taints } : {}), ...(unschedulable ? { unschedulable } : {}) },
    status: { allocatable: { cpu, memory, pods } },
  };
}
