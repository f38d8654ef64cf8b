import type { ResourceRow } from '../../../src/api/schema/schema.ts';
import { refusedWith, shows } from '../support/attempt.ts';
import type { Attempt } from '../support/attempt.ts';
import { CLUSTER_OBJECTS, clusterObject } from '../support/cluster-objects.ts';
import { CLUSTER_KINDS, kindOf, prefixOf } from '../support/kinds.ts';

/** Of which tenants may see all, or a part, and change nothing. */
const SHARED = new Set([
  'storageclasses.storage.k8s.io',
  'csidrivers.storage.k8s.io',
  'volumeattributesclasses.storage.k8s.io',
  'runtimeclasses.node.k8s.io',
  'priorityclasses.scheduling.k8s.io',
  'ingressclasses.networking.k8s.io',
]);
/** What of them a tenant sees is the subject of other tables. */
const OWN_TABLE = new Set(['namespaces', 'tenants.hypernetes.io', 'nodes']);
const PARTLY_SHOWN = 'clusterroles.rbac.authorization.k8s.io';

const operator = { by: ['operator' as const] };

function reads(row: ResourceRow): Attempt[] {
  const path = `${prefixOf(row)}/${row.resource}`;
  const kind = kindOf(row);
  const seen = { ...operator, expect: shows(`canary-${kind}`) };
  const until = (text: string) => text.includes('\n');
  const name = clusterObject(kind, 'operators-own', '').metadata.name;
  const watch = `${path}?watch=true&fieldSelector=metadata.name%3D${name}`;
  return [
    { name: `list ${kind}`, attack: { path }, control: seen },
    { name: `get ${kind}`, attack: { path: `${path}/${name}` }, control: seen },
    { name: `watch ${kind}`, attack: { path: watch, until }, control: seen },
  ];
}

function writes(row: ResourceRow): Attempt[] {
  const path = `${prefixOf(row)}/${row.resource}`;
  const kind = kindOf(row);
  const expect = refusedWith(403, 404);
  const write = (name: string, method: string, target: string, body?: unknown): Attempt => ({
    name: `${name} ${kind}`,
    attack: { method, path: target, ...(body ? { body } : {}) },
    expect,
    control: {
      ...operator,
      try: { method, path: `${target}?dryRun=All`, ...(body ? { body } : {}) },
    },
  });
  const one = `${path}/${clusterObject(kind, 'operators-own', '').metadata.name}`;
  const labels = { metadata: { labels: { planted: 'yes' } } };
  return [
    write('create', 'POST', path, clusterObject(kind, 'planted', 'planted')),
    write('patch', 'PATCH', one, labels),
    write('delete', 'DELETE', one),
    write('delete all', 'DELETE', path),
  ];
}

const rows = CLUSTER_KINDS.filter(
  (row) => CLUSTER_OBJECTS[kindOf(row)] && !OWN_TABLE.has(kindOf(row)),
);

/** Every verb at every kind that is the operator's. */
export const CLUSTER_ATTEMPTS: Attempt[] = rows.flatMap((row) => {
  const isRead = !SHARED.has(kindOf(row)) && kindOf(row) !== PARTLY_SHOWN;
  return [...(isRead ? reads(row) : []), ...writes(row)];
});
