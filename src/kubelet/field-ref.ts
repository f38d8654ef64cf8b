import type { Container, Pod, PodStatus } from '../api/types.generated.ts';
import { amountOf } from './quantity.ts';

/** What the downward API can say about a pod: fields by path, and containers' resources. */
export interface DownwardContext {
  pod: Pod;
  podIp: string;
  hostIp: string;
  node: { cpuMillis: number; memoryBytes: number };
}

/** `key="value"` a line, sorted, with quotes as Go writes them. */
function formatMap(map: Record<string, string> | undefined): string {
  const entries = Object.entries(map ?? {}).sort(([a], [b]) => (a < b ? -1 : 1));
  return entries.map(([key, value]) => `${key}=${JSON.stringify(value)}`).join('\n');
}

const SUBSCRIPT = /^metadata\.(labels|annotations)\['([^']+)'\]$/;

/** Undefined for a path that the downward API does not know. */
export function fieldValue(path: string, context: DownwardContext): string | undefined {
  const { pod } = context;
  const { metadata, spec } = pod;
  const subscript = SUBSCRIPT.exec(path);
  if (subscript) {
    const map = subscript[1] === 'labels' ? metadata.labels : metadata.annotations;
    return map?.[subscript[2] as string] ?? '';
  }
  const values: Record<string, () => string> = {
    'metadata.name': () => metadata.name ?? '',
    'metadata.namespace': () => metadata.namespace ?? '',
    'metadata.uid': () => metadata.uid ?? '',
    'metadata.labels': () => formatMap(metadata.labels),
    'metadata.annotations': () => formatMap(metadata.annotations),
    'spec.nodeName': () => spec?.nodeName ?? '',
    'spec.serviceAccountName': () => spec?.serviceAccountName ?? '',
    'spec.host': () => spec?.nodeName ?? '',
    'status.hostIP': () => context.hostIp,
    'status.hostIPs': () => context.hostIp,
    'status.podIP': () => context.podIp,
    'status.podIPs': () => context.podIp,
    'status.phase': () => (pod.status as PodStatus | undefined)?.phase ?? '',
  };
  return values[path]?.();
}

/**
 * `limits.cpu` and so on of one container, in whole units of the divisor, rounded up. A limit
 * that is not set is what the node has.
 */
export function resourceValue(
  resource: string,
  divisor: string | undefined,
  container: Container,
  context: DownwardContext,
): string | undefined {
  const match = /^(limits|requests)\.(cpu|memory|ephemeral-storage|hugepages-.+)$/.exec(resource);
  if (!match) return undefined;
  const [, list, name] = match as unknown as [string, 'limits' | 'requests', string];
  const { resources } = container;
  const fallback: Record<string, number> = {
    cpu: context.node.cpuMillis / 1000,
    memory: context.node.memoryBytes,
  };
  const value =
    amountOf(resources?.[list]?.[name]) ??
    (list === 'limits' ? fallback[name] : amountOf(resources?.limits?.[name])) ??
    0;
  const unit = amountOf(divisor) || 1;
  // Decimal fractions such as 0.3/0.001 must not round up to 301.
  return String(Math.ceil(Number((value / unit).toFixed(6))));
}
