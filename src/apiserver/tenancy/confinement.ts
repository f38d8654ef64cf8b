import type { KubeObject } from '../../api/object.ts';
import type { ResourceRow } from '../../api/schema/schema.ts';
import { qualifiedResource } from '../../api/status.ts';
import type { Tenant, TenantAllowed } from '../../api/tenancy.ts';
import { clusterVisibility } from '../../auth/tenant-scope.ts';
import type { Entry } from '../../store/store.ts';
import { encodeJson } from '../codec/reply.ts';
import type { RequestContext } from '../context.ts';
import type { Predicate } from '../registry/selection.ts';
import type { TenantDirectory } from './directory.ts';
import { sanitisedNode } from './nodes.ts';

/** What of one resource exists for a request. Everything, for users without a tenant. */
export interface Confinement {
  /** The store's partition whose entries alone exist. */
  partition?: string;
  /** Of those, the ones that exist. */
  isVisible?: (entry: Entry) => boolean;
  /** What is shown of one. */
  view?: (entry: Entry) => Entry;
}

const UNCONFINED: Confinement = {};

/**
 * Every way to an object of the store leads through here: lists, watches, single objects, and what
 * is to be written.
 */
export function confinementOf({ server, user }: RequestContext, row: ResourceRow): Confinement {
  const { tenant } = user;
  if (tenant === undefined) return UNCONFINED;
  if (row.namespaced) return { partition: tenant };
  const resource = qualifiedResource(row.group, row.resource);
  if (resource === 'tenants.hypernetes.io') {
    return { isVisible: (entry) => isTenantWithin(server.tenants, tenant, entry) };
  }
  switch (clusterVisibility(row.group, row.resource)) {
    case 'own':
      return { partition: tenant };
    case 'shared':
      return sharedWith(server.tenants, tenant, resource);
    case 'sanitised':
      return { view: viewer(sanitisedNode) };
    default:
      return { isVisible: () => false };
  }
}

/** Told from the entry, not from what is stored now: its deletion is to be seen too. */
function isTenantWithin(
  tenants: TenantDirectory,
  ancestor: string,
  { key, object }: Entry,
): boolean {
  const { parent } = (object as Tenant).spec;
  return key.name === ancestor || (parent !== undefined && tenants.isWithin(ancestor, parent));
}

/** The entry, as far as it exists for the request. */
export function confined(confinement: Confinement, entry: Entry | undefined): Entry | undefined {
  if (!entry) return undefined;
  const { partition, isVisible, view } = confinement;
  if (partition !== undefined && entry.partition !== partition) return undefined;
  if (isVisible && !isVisible(entry)) return undefined;
  return view ? view(entry) : entry;
}

/**
 * What of a selection exists for the request. Selectors look at what is shown: by those that look at
 * more, the rest could be found out.
 */
export function confinedSelection(
  { isVisible, view }: Confinement,
  selection: Predicate | undefined,
): Predicate | undefined {
  const selects = view && selection ? (entry: Entry) => selection(view(entry)) : selection;
  if (!isVisible || !selects) return isVisible ?? selects;
  return (entry) => isVisible(entry) && selects(entry);
}

/** Kinds of which a tenant may be given some only. */
const CLASSES: Record<string, keyof TenantAllowed> = {
  'storageclasses.storage.k8s.io': 'storageClasses',
  'runtimeclasses.node.k8s.io': 'runtimeClasses',
  'priorityclasses.scheduling.k8s.io': 'priorityClasses',
};

function sharedWith(tenants: TenantDirectory, tenant: string, resource: string): Confinement {
  if (resource === 'clusterroles.rbac.authorization.k8s.io') return { isVisible: isOfferedRole };
  const kind = CLASSES[resource];
  const names = kind && tenants.allowedNames(tenant, kind);
  return names ? { isVisible: ({ key }) => names.includes(key.name) } : UNCONFINED;
}

/** The roles that a cluster starts with for people; what else the operator has made is not told. */
export function isOfferedRole({ key, object }: Entry): boolean {
  const isDefault = object.metadata.labels?.['kubernetes.io/bootstrapping'] === 'rbac-defaults';
  return isDefault && !key.name.startsWith('system:') && !key.name.startsWith('hypernetes:');
}

/** Entries that show a part of others, made once for each. */
function viewer(show: (object: KubeObject) => KubeObject): (entry: Entry) => Entry {
  let views = viewsBy.get(show);
  if (!views) viewsBy.set(show, (views = new WeakMap()));
  const known = views;
  return (entry) => {
    let view = known.get(entry);
    if (!view) {
      const object = show(entry.object);
      const { key, revision, createRevision, partition } = entry;
      view = { key, revision, createRevision, partition, object, bytes: encodeJson(object) };
      known.set(entry, view);
    }
    return view;
  };
}

const viewsBy = new WeakMap<(object: KubeObject) => KubeObject, WeakMap<Entry, Entry>>();
