import { isIPv4 } from 'node:net';
import type { KubeObject } from '../api/object.ts';
import { StatusError, isStatus } from '../api/status.ts';
import type { Transport } from '../client/transport.ts';
import type { ResourceRow, SchemaTable } from '../api/schema/schema.ts';
import { firstAddress } from './registry/strategies/service-allocator.ts';

/** The namespaces that every cluster has from the start. */
const NAMESPACES = ['default', 'kube-system', 'kube-public', 'kube-node-lease'];

const object = (apiVersion: string, kind: string, name: string, rest: object): KubeObject => ({
  apiVersion,
  kind,
  metadata: { name, ...(rest as { metadata?: object }).metadata },
  ...Object.fromEntries(Object.entries(rest).filter(([key]) => key !== 'metadata')),
});

/** What an empty cluster is given, beside the roles. In order: later objects need earlier ones. */
export function systemObjects(options: {
  serviceCidr: string;
  advertise: { host: string; port: number };
}): KubeObject[] {
  const { advertise } = options;
  const inDefault = { namespace: 'default' };
  const apiServerLabels = { component: 'apiserver', provider: 'kubernetes' };
  return [
    ...NAMESPACES.map((name) => object('v1', 'Namespace', name, {})),
    priorityClass(
      'system-node-critical',
      2_000_001_000,
      'For pods that have to stay on their node.',
    ),
    priorityClass('system-cluster-critical', 2_000_000_000, 'For pods that have to run somewhere.'),
    object('v1', 'Service', 'kubernetes', {
      metadata: { ...inDefault, labels: apiServerLabels },
      spec: {
        clusterIP: firstAddress(options.serviceCidr),
        ports: [{ name: 'https', protocol: 'TCP', port: 443, targetPort: advertise.port }],
        sessionAffinity: 'None',
        type: 'ClusterIP',
      },
    }),
    ...endpoints(advertise),
  ];
}

/** Nobody but this machine reaches a loopback address: it is not told to pods. */
function endpoints(advertise: { host: string; port: number }): KubeObject[] {
  if (!isIPv4(advertise.host) || advertise.host.startsWith('127.')) return [];
  const namespace = 'default';
  const port = { name: 'https', protocol: 'TCP', port: advertise.port };
  const sliceLabels = { 'kubernetes.io/service-name': 'kubernetes' };
  return [
    object('v1', 'Endpoints', 'kubernetes', {
      metadata: { namespace, labels: { 'endpointslice.kubernetes.io/skip-mirror': 'true' } },
      subsets: [{ addresses: [{ ip: advertise.host }], ports: [port] }],
    }),
    object('discovery.k8s.io/v1', 'EndpointSlice', 'kubernetes', {
      metadata: { namespace, labels: sliceLabels },
      addressType: 'IPv4',
      endpoints: [{ addresses: [advertise.host], conditions: { ready: true } }],
      ports: [port],
    }),
  ];
}

function priorityClass(name: string, value: number, description: string): KubeObject {
  return object('scheduling.k8s.io/v1', 'PriorityClass', name, { value, description });
}

/** Kinds whose content follows the server's options: brought up to date at each start. */
const FOLLOWING = new Set(['Endpoints', 'EndpointSlice']);

/** Creates what is missing, through the API itself; what is there keeps the operator's changes. */
export async function ensureObjects(
  transport: Transport,
  schema: SchemaTable,
  objects: readonly KubeObject[],
): Promise<void> {
  const ensure = async (wanted: KubeObject): Promise<void> => {
    const row = schema.byKind(wanted.apiVersion, wanted.kind);
    if (!row)
      throw new RangeError(`cannot create ${wanted.kind}: ${wanted.apiVersion} is not served`);
    const collection = pathOf(row, wanted.metadata.namespace);
    const one = `${collection}/${encodeURIComponent(wanted.metadata.name ?? '')}`;
    const found = await send(transport, 'GET', one).catch((error) => {
      if (isStatus(error, 'NotFound')) return undefined;
      throw error;
    });
    if (!found) await send(transport, 'POST', collection, wanted);
    else if (FOLLOWING.has(wanted.kind)) {
      const metadata = { ...found.metadata, ...wanted.metadata };
      await send(transport, 'PUT', one, { ...found, ...wanted, metadata });
    }
  };
  // Objects of one kind never need each other; together they share the store's transactions.
  for (let at = 0; at < objects.length;) {
    const kind = objects[at]?.kind;
    const end = objects.findIndex((each, index) => index > at && each.kind !== kind);
    const batch = objects.slice(at, end < 0 ? objects.length : end);
    await Promise.all(batch.map(ensure));
    at += batch.length;
  }
}

function pathOf(row: ResourceRow, namespace: string | undefined): string {
  const root = row.group ? `/apis/${row.group}/${row.version}` : `/api/${row.version}`;
  return `${root}${row.namespaced ? `/namespaces/${namespace}` : ''}/${row.resource}`;
}

async function send(
  transport: Transport,
  method: string,
  path: string,
  body?: KubeObject,
): Promise<KubeObject> {
  const response = await transport.request({
    method,
    path,
    headers: { 'content-type': 'application/json' },
    ...(body ? { body: JSON.stringify(body) } : {}),
  });
  const chunks: Uint8Array[] = [];
  for await (const chunk of response.body) chunks.push(chunk);
  const parsed = JSON.parse(Buffer.concat(chunks).toString('utf8')) as KubeObject;
  if (response.status >= 400) throw StatusError.from(parsed as never);
  return parsed;
}
