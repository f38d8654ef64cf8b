import type { KubeObject } from '../../api/object.ts';
import { addQuantities, compareQuantities, quantityMillis } from '../../api/quantity.ts';
import type { AdmissionPlugin, AdmissionRequest } from './chain.ts';
import { forbidden } from './chain.ts';

type Amounts = Record<string, string>;

interface LimitItem {
  type: 'Container' | 'Pod' | 'PersistentVolumeClaim' | string;
  max?: Amounts;
  min?: Amounts;
  default?: Amounts;
  defaultRequest?: Amounts;
  maxLimitRequestRatio?: Amounts;
}

interface Resources {
  requests?: Amounts;
  limits?: Amounts;
}

interface Container {
  resources?: Resources;
}

/** A namespace's limits and defaults for what one container, pod or claim may ask for. */
export const limitRanger: AdmissionPlugin = {
  name: 'LimitRanger',
  resources: ['pods', 'persistentvolumeclaims'],
  operations: ['CREATE', 'UPDATE'],
  subresources: ['resize'],
  mutate(request) {
    if (request.row.resource !== 'pods' || request.operation !== 'CREATE') return;
    for (const item of itemsOf(request)) {
      if (item.type !== 'Container') continue;
      for (const container of containersOf(request.object)) setDefaults(container, item);
    }
  },
  validate(request) {
    const { object } = request;
    if (!object || !isJudged(request)) return;
    const problems = itemsOf(request).flatMap((item) => problemsOf(object, item));
    if (problems.length === 0) return;
    throw forbidden(
      request,
      problems.length === 1 ? (problems[0] as string) : `[${problems.join(', ')}]`,
    );
  },
};

/** What a pod is given is settled when it is made, and when it is resized. */
function isJudged({ operation, subresource }: AdmissionRequest): boolean {
  return operation === 'CREATE' || subresource === 'resize';
}

function itemsOf({ server, namespace }: AdmissionRequest): LimitItem[] {
  const { entries } = server.store.list('limitranges', { namespace });
  return entries.flatMap(({ object }) => (object.spec as { limits?: LimitItem[] })?.limits ?? []);
}

function containersOf(pod: KubeObject): Container[] {
  const spec = (pod.spec ?? {}) as { containers?: Container[]; initContainers?: Container[] };
  return [...(spec.initContainers ?? []), ...(spec.containers ?? [])];
}

function setDefaults(container: Container, item: LimitItem): void {
  const { requests = {}, limits = {} } = container.resources ?? {};
  const allLimits = { ...item.default, ...limits };
  // What is limited by the client and not requested asks for its limit, not for the default.
  const allRequests = { ...item.defaultRequest, ...limits, ...requests };
  if (Object.keys(allLimits).length + Object.keys(allRequests).length === 0) return;
  container.resources = {
    ...container.resources,
    ...(Object.keys(allRequests).length > 0 ? { requests: allRequests } : {}),
    ...(Object.keys(allLimits).length > 0 ? { limits: allLimits } : {}),
  };
}

function problemsOf(object: KubeObject, item: LimitItem): string[] {
  if (object.kind === 'Pod' && item.type === 'Container') {
    return containersOf(object).flatMap(({ resources }) => check(resources ?? {}, item));
  }
  if (object.kind === 'Pod' && item.type === 'Pod') return check(podTotal(object), item);
  if (object.kind === item.type) {
    return check((object.spec as { resources?: Resources })?.resources ?? {}, item);
  }
  return [];
}

function podTotal(pod: KubeObject): Resources {
  const spec = (pod.spec ?? {}) as { containers?: Container[]; initContainers?: Container[] };
  const total = (side: keyof Resources): Amounts => {
    const sum: Amounts = {};
    for (const { resources } of spec.containers ?? []) {
      for (const [name, amount] of Object.entries(resources?.[side] ?? {})) {
        sum[name] = sum[name] === undefined ? amount : addQuantities(sum[name], amount);
      }
    }
    for (const { resources } of spec.initContainers ?? []) {
      for (const [name, amount] of Object.entries(resources?.[side] ?? {})) {
        const known = sum[name];
        if (known === undefined || compareQuantities(known, amount) < 0) sum[name] = amount;
      }
    }
    return sum;
  };
  return { requests: total('requests'), limits: total('limits') };
}

function check(resources: Resources, item: LimitItem): string[] {
  const { requests = {}, limits = {} } = resources;
  const problems: string[] = [];
  for (const [name, min] of Object.entries(item.min ?? {})) {
    const asked = requests[name];
    const subject = `minimum ${name} usage per ${item.type} is ${min}`;
    if (asked === undefined) problems.push(`${subject}.  No request is specified`);
    else if (compareQuantities(asked, min) < 0)
      problems.push(`${subject}, but request is ${asked}`);
  }
  for (const [name, max] of Object.entries(item.max ?? {})) {
    const limit = item.type === 'PersistentVolumeClaim' ? requests[name] : limits[name];
    const subject = `maximum ${name} usage per ${item.type} is ${max}`;
    if (limit === undefined) problems.push(`${subject}.  No limit is specified`);
    else if (compareQuantities(limit, max) > 0) problems.push(`${subject}, but limit is ${limit}`);
  }
  for (const [name, ratio] of Object.entries(item.maxLimitRequestRatio ?? {})) {
    const [request, limit] = [requests[name], limits[name]];
    const subject = `${name} max limit to request ratio per ${item.type} is ${ratio}`;
    if (request === undefined || limit === undefined || quantityMillis(request) === 0) {
      problems.push(`${subject}, but no request or limit is specified`);
      continue;
    }
    const found = quantityMillis(limit) / quantityMillis(request);
    if (found * 1000 > quantityMillis(ratio)) {
      problems.push(`${subject}, but provided ratio is ${found.toFixed(6)}`);
    }
  }
  return problems;
}
