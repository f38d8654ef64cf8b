import { isDeepStrictEqual } from 'node:util';
import { isStatus } from '../../api/status.ts';
import type { Endpoints, EndpointSlice, Pod, Service } from '../../api/types.generated.ts';
import { runController } from '../../client/controller.ts';
import { objectKey } from '../../client/informer.ts';
import { ENDPOINT_SLICES, ENDPOINTS, PODS, SERVICES } from '../../client/resources.ts';
import { createWorkQueue } from '../../client/workqueue.ts';
import type { ControllerContext } from '../common/context.ts';
import { splitKey } from '../common/context.ts';
import { controllerReference } from '../common/ownership.ts';
import { groupByPorts, hasSelector, isServing, selects } from './resolve.ts';
import type { PortGroup } from './resolve.ts';

const SERVICE_LABEL = 'kubernetes.io/service-name';
const MANAGED_LABEL = 'endpointslice.kubernetes.io/managed-by';
const MANAGER = 'endpointslice-controller.k8s.io';
const HEADLESS_LABEL = 'service.kubernetes.io/headless';
const ENDPOINTS_LABEL = 'endpoints.kubernetes.io/managed-by';
/** As in Kubernetes: of one slice, and of an Endpoints object, which has no more than one part. */
const SLICE_LENGTH = 100;
const ENDPOINTS_LENGTH = 1000;
const BY_SERVICE = 'service';

/** Keeps the addresses of each service's pods in EndpointSlices and, as ever, in Endpoints. */
export function runEndpointsController(context: ControllerContext): Promise<void> {
  const { informers, clock, log, signal } = context;
  const services = informers.informer(SERVICES);
  const pods = informers.informer(PODS);
  const slices = informers.informer(ENDPOINT_SLICES);
  const endpoints = informers.informer(ENDPOINTS);
  slices.addIndex(BY_SERVICE, ({ metadata }) => {
    const { [SERVICE_LABEL]: service, [MANAGED_LABEL]: manager } = metadata.labels ?? {};
    return service && manager === MANAGER ? [`${metadata.namespace}/${service}`] : [];
  });
  const queue = createWorkQueue(clock);
  const enqueue = (service: Service) => queue.add(objectKey(service));
  const enqueueServicesOf = (pod: Pod): void => {
    for (const service of services.list(pod.metadata.namespace ?? '')) {
      if (hasSelector(service) && selects(service, pod)) enqueue(service);
    }
  };
  services.addHandler({ add: enqueue, update: enqueue, delete: enqueue });
  pods.addHandler({
    add: enqueueServicesOf,
    update(pod, previous) {
      if (!isDeepStrictEqual(pod.metadata.labels, previous.metadata.labels)) {
        enqueueServicesOf(previous);
      }
      enqueueServicesOf(pod);
    },
    delete: enqueueServicesOf,
  });
  const enqueueServiceOf = ({ metadata }: EndpointSlice): void => {
    const service = metadata.labels?.[SERVICE_LABEL];
    if (service) queue.add(`${metadata.namespace}/${service}`);
  };
  // Looked at after each creation too: a slice made twice, while the first was not seen, goes.
  slices.addHandler({ add: enqueueServiceOf, delete: enqueueServiceOf });
  const reconcile = async (key: string): Promise<void> => {
    const { namespace, name } = splitKey(key);
    const service = services.get(namespace, name);
    if (!service) return removeEndpoints(context, namespace, name);
    if (!hasSelector(service) || service.metadata.deletionTimestamp) return;
    const matching = pods.list(namespace).filter((pod) => selects(service, pod));
    const groups = groupByPorts(service, matching);
    await syncSlices(context, service, groups);
    await syncEndpoints(context, service, groups);
  };
  return runController({
    name: 'endpoints',
    queue,
    reconcile,
    informers: [services, pods, slices, endpoints],
    clock,
    log,
    signal,
  });
}

async function syncSlices(
  { client, informers }: ControllerContext,
  service: Service,
  groups: PortGroup[],
): Promise<void> {
  const existing = [
    ...informers.informer(ENDPOINT_SLICES).byIndex(BY_SERVICE, objectKey(service)),
  ].sort((a, b) => ((a.metadata.name ?? '') < (b.metadata.name ?? '') ? -1 : 1));
  const wanted = draftSlices(service, groups);
  // A slice that is right already stays; the others are written over, as names mean nothing.
  const rest = wanted.filter((draft) => {
    const index = existing.findIndex((slice) => isSameSlice(slice, draft));
    if (index >= 0) existing.splice(index, 1);
    return index < 0;
  });
  for (const draft of rest) {
    const slice = existing.shift();
    if (!slice) await client.create(ENDPOINT_SLICES, draft);
    else {
      const { labels } = draft.metadata;
      const metadata = { ...slice.metadata, labels };
      const { endpoints, ports } = draft;
      await client.update(ENDPOINT_SLICES, { ...slice, metadata, endpoints, ports });
    }
  }
  for (const { metadata } of existing) {
    const { namespace, name = '', uid } = metadata;
    try {
      await client.delete(ENDPOINT_SLICES, { namespace, name }, { uid });
    } catch (error) {
      if (!isStatus(error, 'NotFound')) throw error;
    }
  }
}

function isSameSlice(a: EndpointSlice, b: EndpointSlice): boolean {
  const content = ({ endpoints, ports, metadata }: EndpointSlice) =>
    JSON.parse(JSON.stringify([endpoints ?? [], ports ?? [], metadata.labels])) as unknown;
  return isDeepStrictEqual(content(a), content(b));
}

/** At least one, so that readers can tell a service without pods from one not looked at yet. */
function draftSlices(service: Service, groups: PortGroup[]): EndpointSlice[] {
  const { name = '', namespace, labels } = service.metadata;
  const isHeadless = service.spec?.clusterIP === 'None';
  const draft = ({ ports, pods }: PortGroup): EndpointSlice => ({
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: {
      generateName: `${name}-`,
      namespace,
      labels: {
        ...labels,
        ...(isHeadless ? { [HEADLESS_LABEL]: '' } : {}),
        [SERVICE_LABEL]: name,
        [MANAGED_LABEL]: MANAGER,
      },
      ownerReferences: [controllerReference(SERVICES, service)],
    },
    addressType: 'IPv4',
    endpoints: pods.map((pod) => draftEndpoint(service, pod)),
    ports,
  });
  const chunks = groups.flatMap(({ ports, pods }) =>
    Array.from({ length: Math.ceil(pods.length / SLICE_LENGTH) }, (_, index) => ({
      ports,
      pods: pods.slice(index * SLICE_LENGTH, (index + 1) * SLICE_LENGTH),
    })),
  );
  return (chunks.length ? chunks : [{ ports: [], pods: [] }]).map(draft);
}

function draftEndpoint(service: Service, pod: Pod): EndpointSlice['endpoints'][number] {
  const { name, namespace, uid, deletionTimestamp } = pod.metadata;
  const { hostname, subdomain, nodeName } = pod.spec ?? {};
  const serving = isServing(service, pod);
  const terminating = deletionTimestamp !== undefined;
  const publishes = service.spec?.publishNotReadyAddresses === true;
  return {
    addresses: [pod.status?.podIP ?? ''],
    conditions: { ready: serving && (!terminating || publishes), serving, terminating },
    ...(hostname && subdomain === service.metadata.name ? { hostname } : {}),
    ...(nodeName ? { nodeName } : {}),
    targetRef: { kind: 'Pod', name, namespace, uid },
  };
}

async function syncEndpoints(
  { client, informers }: ControllerContext,
  service: Service,
  groups: PortGroup[],
): Promise<void> {
  const { name = '', namespace, labels } = service.metadata;
  const subsets = draftSubsets(service, groups);
  const wanted: Endpoints = {
    apiVersion: 'v1',
    kind: 'Endpoints',
    metadata: { name, namespace, labels: { ...labels, [ENDPOINTS_LABEL]: 'endpoint-controller' } },
    ...(subsets.length ? { subsets } : {}),
  };
  const current = informers.informer(ENDPOINTS).get(namespace, name);
  if (!current) {
    await client.create(ENDPOINTS, wanted);
    return;
  }
  const content = ({ subsets: parts = [], metadata }: Endpoints) =>
    JSON.parse(JSON.stringify([parts, metadata.labels])) as unknown;
  if (isDeepStrictEqual(content(current), content(wanted))) return;
  const metadata = { ...current.metadata, labels: wanted.metadata.labels };
  await client.update(ENDPOINTS, { ...wanted, metadata });
}

function draftSubsets(service: Service, groups: PortGroup[]): NonNullable<Endpoints['subsets']> {
  let left = ENDPOINTS_LENGTH;
  return groups.flatMap(({ ports, pods }) => {
    const alive = pods.filter(({ metadata }) => !metadata.deletionTimestamp).slice(0, left);
    left -= alive.length;
    if (alive.length === 0) return [];
    const addresses = (isWanted: boolean) =>
      alive
        .filter((pod) => isServing(service, pod) === isWanted)
        .map(({ metadata: { name, namespace, uid }, spec, status }) => ({
          ip: status?.podIP ?? '',
          ...(spec?.nodeName ? { nodeName: spec.nodeName } : {}),
          targetRef: { kind: 'Pod', name, namespace, uid },
        }));
    const [ready, notReady] = [addresses(true), addresses(false)];
    return [
      {
        ...(ready.length ? { addresses: ready } : {}),
        ...(notReady.length ? { notReadyAddresses: notReady } : {}),
        ports: ports.map(({ name, ...port }) => ({ ...(name ? { name } : {}), ...port })),
      },
    ];
  });
}

/** Slices go with their owner; Endpoints have none, as somebody else may have made them. */
async function removeEndpoints(
  { client, informers }: ControllerContext,
  namespace: string,
  name: string,
): Promise<void> {
  const current = informers.informer(ENDPOINTS).get(namespace, name);
  if (current?.metadata.labels?.[ENDPOINTS_LABEL] === undefined) return;
  try {
    await client.delete(ENDPOINTS, { namespace, name }, { uid: current.metadata.uid });
  } catch (error) {
    if (!isStatus(error, 'NotFound')) throw error;
  }
}
