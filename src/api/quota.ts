import type { KubeObject } from './object.ts';
import { addQuantities, compareQuantities } from './quantity.ts';

/** Amounts by the names that quotas use: `pods`, `requests.cpu`, `count/deployments.apps`. */
export type Usage = Record<string, string>;

export interface QuotaSpec {
  hard?: Usage;
  scopes?: string[];
  scopeSelector?: {
    matchExpressions?: { scopeName: string; operator: string; values?: string[] }[];
  };
}

/** Kinds that quotas count under a short name of their own. */
const COUNTED_KINDS: Record<string, string> = {
  pods: 'Pod',
  services: 'Service',
  secrets: 'Secret',
  configmaps: 'ConfigMap',
  persistentvolumeclaims: 'PersistentVolumeClaim',
  replicationcontrollers: 'ReplicationController',
  resourcequotas: 'ResourceQuota',
};

const COMPUTED = ['cpu', 'memory', 'ephemeral-storage'];

/** Names without a group that a quota may limit. */
const STANDARD_NAMES = new Set([
  ...Object.keys(COUNTED_KINDS),
  ...COMPUTED.flatMap((name) => [name, `requests.${name}`, `limits.${name}`]),
  'requests.storage',
  'services.nodeports',
  'services.loadbalancers',
]);

/** Whether a quota may limit this name. One with a slash may be anybody's. */
export function isQuotaName(name: string): boolean {
  if (name.includes('/')) return true;
  return STANDARD_NAMES.has(name) || /^(?:requests\.)?hugepages-/.test(name);
}

/** Whether a limit of this name is a number of objects, which is whole. */
export function isCountedName(name: string): boolean {
  return Object.hasOwn(COUNTED_KINDS, name) || /^(?:count\/|services\.)/.test(name);
}

/** The store's resources that have to be counted for a limit of this name. */
export function resourcesCountedBy(name: string): string[] {
  const counted = /^count\/([a-z0-9]+)(?:\.(.+))?$/.exec(name);
  if (counted) return [counted[2] ? `${counted[2]}/${counted[1]}` : (counted[1] as string)];
  if (Object.hasOwn(COUNTED_KINDS, name)) return [name];
  if (name.startsWith('services.')) return ['services'];
  if (name === 'requests.storage' || name.includes('.storageclass.storage.k8s.io/')) {
    return ['persistentvolumeclaims'];
  }
  return ['pods'];
}

/** What one object adds to each of the limits named. Finished pods add nothing. */
export function evaluate(object: KubeObject, names: string[]): Usage {
  const usage: Usage = {};
  if (isFinished(object)) return usage;
  for (const name of names) {
    const amount = amountOf(object, name);
    if (amount !== undefined) usage[name] = amount;
  }
  return usage;
}

function isFinished(object: KubeObject): boolean {
  const { phase } = (object.status ?? {}) as { phase?: string };
  return object.kind === 'Pod' && (phase === 'Succeeded' || phase === 'Failed');
}

function amountOf(object: KubeObject, name: string): string | undefined {
  if (name.startsWith('count/')) return countOf(object, name);
  if (COUNTED_KINDS[name]) return COUNTED_KINDS[name] === object.kind ? '1' : undefined;
  if (object.kind === 'Service') return serviceAmount(object, name);
  if (object.kind === 'PersistentVolumeClaim') return claimAmount(object, name);
  if (object.kind === 'Pod') return podAmount(object, name);
  return undefined;
}

function countOf(object: KubeObject, name: string): string | undefined {
  const group = object.apiVersion.includes('/') ? object.apiVersion.split('/')[0] : '';
  const [resource = '', wantedGroup = ''] = splitOnce(name.slice('count/'.length), '.');
  // Every plural in the table is the kind in lower case with an ending.
  const stem = object.kind.toLowerCase();
  const plurals = [`${stem}s`, `${stem}es`, `${stem.replace(/y$/, 'ie')}s`, stem];
  return group === wantedGroup && plurals.includes(resource) ? '1' : undefined;
}

function splitOnce(text: string, separator: string): [string, string] {
  const at = text.indexOf(separator);
  return at < 0 ? [text, ''] : [text.slice(0, at), text.slice(at + 1)];
}

function serviceAmount(service: KubeObject, name: string): string | undefined {
  const { type, ports = [] } = (service.spec ?? {}) as {
    type?: string;
    ports?: { nodePort?: number }[];
  };
  if (name === 'services.loadbalancers') return type === 'LoadBalancer' ? '1' : '0';
  if (name !== 'services.nodeports') return undefined;
  return type === 'NodePort' || type === 'LoadBalancer' ? String(ports.length) : '0';
}

function claimAmount(claim: KubeObject, name: string): string | undefined {
  const spec = (claim.spec ?? {}) as {
    storageClassName?: string;
    resources?: { requests?: Record<string, string> };
  };
  const storage = spec.resources?.requests?.storage ?? '0';
  if (name === 'requests.storage') return storage;
  const [storageClass, rest] = splitOnce(name, '.storageclass.storage.k8s.io/');
  if (!rest || storageClass !== spec.storageClassName) return undefined;
  return rest === 'requests.storage' ? storage : '1';
}

interface PodSpec {
  containers?: { resources?: Record<string, Record<string, string>> }[];
  initContainers?: {
    restartPolicy?: string;
    resources?: Record<string, Record<string, string>>;
  }[];
  overhead?: Record<string, string>;
  activeDeadlineSeconds?: number;
  priorityClassName?: string;
}

function podAmount(pod: KubeObject, name: string): string | undefined {
  const match = /^(?:(requests|limits)\.)?([^/]+(?:\/.+)?)$/.exec(name);
  if (!match) return undefined;
  const [, side = 'requests', resource = ''] = match;
  const spec = (pod.spec ?? {}) as PodSpec;
  const ofSide = (one: { resources?: Record<string, Record<string, string>> }) =>
    one.resources?.[side]?.[resource] ?? '0';
  let sum = spec.overhead?.[resource] ?? '0';
  for (const container of spec.containers ?? []) sum = addQuantities(sum, ofSide(container));
  for (const container of spec.initContainers ?? []) {
    const amount = ofSide(container);
    if (container.restartPolicy === 'Always') sum = addQuantities(sum, amount);
    else if (compareQuantities(amount, sum) > 0) sum = amount;
  }
  return sum;
}

/** Whether a quota's scopes take the object in. All of them have to. */
export function isInScope(object: KubeObject, spec: QuotaSpec): boolean {
  const expressions = [
    ...(spec.scopes ?? []).map((scopeName) => ({ scopeName, operator: 'Exists', values: [] })),
    ...(spec.scopeSelector?.matchExpressions ?? []),
  ];
  if (expressions.length === 0) return true;
  if (object.kind !== 'Pod') return false;
  return expressions.every(({ scopeName, operator, values }) =>
    matchesScope(object, scopeName, operator, values ?? []),
  );
}

function matchesScope(pod: KubeObject, name: string, operator: string, values: string[]): boolean {
  const spec = (pod.spec ?? {}) as PodSpec;
  const { qosClass } = (pod.status ?? {}) as { qosClass?: string };
  const isBestEffort = qosClass === 'BestEffort';
  switch (name) {
    case 'Terminating':
      return spec.activeDeadlineSeconds !== undefined;
    case 'NotTerminating':
      return spec.activeDeadlineSeconds === undefined;
    case 'BestEffort':
      return isBestEffort;
    case 'NotBestEffort':
      return !isBestEffort;
    case 'PriorityClass':
      return matchesValue(spec.priorityClassName, operator, values);
    default:
      return false;
  }
}

function matchesValue(value: string | undefined, operator: string, values: string[]): boolean {
  const operators: Record<string, boolean> = {
    Exists: Boolean(value),
    DoesNotExist: !value,
    In: value !== undefined && values.includes(value),
    NotIn: value === undefined || !values.includes(value),
  };
  return operators[operator] ?? false;
}
