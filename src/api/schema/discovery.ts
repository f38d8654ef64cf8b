import type { ResourceRow, SchemaTable, SubresourceRow } from './schema.ts';
import { apiVersionOf } from './table.ts';

/** Order in which clients look for a resource that two groups have; others follow by name. */
const GROUP_ORDER = [
  '',
  'apiregistration.k8s.io',
  'apps',
  'events.k8s.io',
  'authentication.k8s.io',
  'authorization.k8s.io',
  'autoscaling',
  'batch',
  'certificates.k8s.io',
  'networking.k8s.io',
  'policy',
  'rbac.authorization.k8s.io',
  'storage.k8s.io',
  'admissionregistration.k8s.io',
  'apiextensions.k8s.io',
  'scheduling.k8s.io',
  'coordination.k8s.io',
  'node.k8s.io',
  'discovery.k8s.io',
  'resource.k8s.io',
  'flowcontrol.apiserver.k8s.io',
];

interface GroupVersions {
  group: string;
  /** Preferred first. */
  versions: string[];
}

/** Groups in order of preference, each with its versions, the preferred one first. */
export function groupVersions(table: SchemaTable): GroupVersions[] {
  const versions = new Map<string, Set<string>>();
  for (const { group, version } of table.rows()) {
    versions.set(group, (versions.get(group) ?? new Set()).add(version));
  }
  return [...versions]
    .map(([group, found]) => ({ group, versions: [...found].sort(newestFirst) }))
    .sort((a, b) => rank(a.group) - rank(b.group) || (a.group < b.group ? -1 : 1));
}

/** `GET /api`. `serverAddress` is host and port. */
export function apiVersions(serverAddress: string): object {
  return {
    kind: 'APIVersions',
    versions: ['v1'],
    serverAddressByClientCIDRs: [{ clientCIDR: '0.0.0.0/0', serverAddress }],
  };
}

/** `GET /apis`. */
export function apiGroupList(table: SchemaTable): object {
  const groups = groupVersions(table).filter(({ group }) => group !== '');
  return { kind: 'APIGroupList', apiVersion: 'v1', groups: groups.map(groupOf) };
}

/** `GET /apis/{group}`; undefined for a group that has no rows. */
export function apiGroup(table: SchemaTable, group: string): object | undefined {
  const found = groupVersions(table).find((candidate) => candidate.group === group);
  return found && group !== ''
    ? { kind: 'APIGroup', apiVersion: 'v1', ...groupOf(found) }
    : undefined;
}

/** `GET /api/v1` and `GET /apis/{group}/{version}`; undefined where there are no rows. */
export function apiResourceList(
  table: SchemaTable,
  group: string,
  version: string,
): object | undefined {
  const rows = rowsOf(table, group, version);
  if (rows.length === 0) return undefined;
  const resources = rows.flatMap((row) => [
    {
      name: row.resource,
      singularName: row.singular,
      namespaced: row.namespaced,
      kind: row.kind,
      verbs: row.verbs,
      ...listed(row),
    },
    ...row.subresources.map((subresource) => ({
      name: `${row.resource}/${subresource.name}`,
      singularName: '',
      namespaced: row.namespaced,
      ...foreign(row, subresource),
      kind: subresource.kind,
      verbs: subresource.verbs,
    })),
  ]);
  const groupVersion = apiVersionOf(group, version);
  return { kind: 'APIResourceList', apiVersion: 'v1', groupVersion, resources };
}

/**
 * Aggregated discovery, `apidiscovery.k8s.io/v2`: everything in one answer. `root` is `api` for
 * the core group, `apis` for all others.
 */
export function aggregatedDiscovery(table: SchemaTable, root: 'api' | 'apis'): object {
  const groups = groupVersions(table).filter(({ group }) => (group === '') === (root === 'api'));
  return {
    kind: 'APIGroupDiscoveryList',
    apiVersion: 'apidiscovery.k8s.io/v2',
    metadata: {},
    items: groups.map(({ group, versions }) => ({
      metadata:
        group === '' ? { creationTimestamp: null } : { name: group, creationTimestamp: null },
      versions: versions.map((version) => ({
        version,
        resources: rowsOf(table, group, version).map(resourceDiscovery),
        freshness: 'Current',
      })),
    })),
  };
}

function resourceDiscovery(row: ResourceRow): object {
  return {
    resource: row.resource,
    responseKind: { group: row.group, version: row.version, kind: row.kind },
    scope: row.namespaced ? 'Namespaced' : 'Cluster',
    singularResource: row.singular,
    verbs: row.verbs,
    ...listed(row),
    ...(row.subresources.length === 0
      ? {}
      : {
          subresources: row.subresources.map(({ name, verbs, group, version, kind }) => ({
            subresource: name,
            responseKind: { group, version, kind },
            verbs,
          })),
        }),
  };
}

function rowsOf(table: SchemaTable, group: string, version: string): ResourceRow[] {
  return table.rows().filter((row) => row.group === group && row.version === version);
}

function listed(row: ResourceRow): { shortNames?: string[]; categories?: string[] } {
  return {
    ...(row.shortNames.length === 0 ? {} : { shortNames: row.shortNames }),
    ...(row.categories.length === 0 ? {} : { categories: row.categories }),
  };
}

function foreign(row: ResourceRow, subresource: SubresourceRow): object {
  const own = row.group === subresource.group && row.version === subresource.version;
  return own ? {} : { group: subresource.group, version: subresource.version };
}

function groupOf({ group, versions }: GroupVersions): object {
  const entries = versions.map((version) => ({
    groupVersion: apiVersionOf(group, version),
    version,
  }));
  return { name: group, versions: entries, preferredVersion: entries[0] };
}

function rank(group: string): number {
  const index = GROUP_ORDER.indexOf(group);
  return index < 0 ? GROUP_ORDER.length : index;
}

/** Kubernetes' order of versions: stable before beta before alpha, then the higher number. */
function newestFirst(a: string, b: string): number {
  return versionRank(b) - versionRank(a) || (a < b ? -1 : 1);
}

function versionRank(version: string): number {
  const match = /^v(\d+)(?:(alpha|beta)(\d+))?$/.exec(version);
  if (!match) return -1;
  const stage = match[2] === 'alpha' ? 0 : match[2] === 'beta' ? 1 : 2;
  return stage * 1e6 + Number(match[1]) * 1e3 + Number(match[3] ?? 0);
}
