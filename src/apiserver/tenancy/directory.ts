import type { IdentityProject } from '../../api/identity.ts';
import type { KubeObject } from '../../api/object.ts';
import { isStopped } from '../../api/tenancy.ts';
import type { Tenant, TenantAllowed } from '../../api/tenancy.ts';
import type { Store } from '../../store/store.ts';

/** Sub-tenants of sub-tenants, no deeper than this. */
export const TENANT_DEPTH_MAX = 8;

/** Who is whose: answered from the store, as it is at the moment of the question. */
export interface TenantDirectory {
  get(name: string): Tenant | undefined;
  names(): string[];
  /** The tenant of a namespace; '' for one of the cluster's own, undefined when there is none. */
  ofNamespace(namespace: string): string | undefined;
  ofProject(project: Pick<IdentityProject, 'id'>): Tenant | undefined;
  /** Itself included: from the tenant up to the one that has no parent. */
  ancestors(name: string): Tenant[];
  /** Whether `name` is `ancestor` or below it. */
  isWithin(ancestor: string, name: string): boolean;
  /** It, or one above it, is. */
  isSuspended(name: string): boolean;
  /** What it and all above it may use; undefined where all may be. */
  allowedNames(name: string, kind: keyof TenantAllowed): string[] | undefined;
  /** The one, of those that are, whose name the namespace's begins with; the longest of them. */
  ownerOfName(namespace: string): Tenant | undefined;

  /** Takes in a created or changed Tenant: the index by project. */
  set(object: KubeObject): void;
  delete(object: KubeObject): void;
}

export const TENANTS_RESOURCE = 'hypernetes.io/tenants';

export function createTenantDirectory(store: Store): TenantDirectory {
  const byProject = new Map<string, string>();
  const projectOf = new Map<string, string>();

  const get = (name: string) =>
    store.get({ resource: TENANTS_RESOURCE, namespace: '', name })?.object as Tenant | undefined;

  const ancestors = (name: string): Tenant[] => {
    const found: Tenant[] = [];
    for (let next: string | undefined = name; next && found.length < TENANT_DEPTH_MAX;) {
      const tenant = get(next);
      if (!tenant) break;
      found.push(tenant);
      next = tenant.spec.parent;
    }
    return found;
  };

  const forget = (name: string) => {
    const project = projectOf.get(name);
    projectOf.delete(name);
    if (project !== undefined && byProject.get(project) === name) byProject.delete(project);
  };

  return {
    get,
    names: () => store.list(TENANTS_RESOURCE).entries.map(({ key }) => key.name),
    ancestors,

    ofNamespace: (name) => store.get({ resource: 'namespaces', namespace: '', name })?.partition,

    ofProject({ id }) {
      const name = byProject.get(id);
      return name === undefined ? undefined : get(name);
    },

    isWithin(ancestor, name) {
      // Below a tenant the names begin with its own: most questions are answered by that.
      if (name !== ancestor && !name.startsWith(`${ancestor}-`)) return false;
      return ancestors(name).some(({ metadata }) => metadata.name === ancestor);
    },

    isSuspended: (name) => ancestors(name).some(isStopped),

    allowedNames(name, kind) {
      const lists = ancestors(name).flatMap(({ spec }) => {
        const names = spec.allowed?.[kind];
        return names ? [names] : [];
      });
      const [first, ...others] = lists;
      if (first) return first.filter((one) => others.every((names) => names.includes(one)));
      // Classes are there to be used; kernels are somebody's own.
      return kind === 'kernels' ? [] : undefined;
    },

    ownerOfName(namespace) {
      for (let end = namespace.length; end > 0; end = namespace.lastIndexOf('-', end - 1)) {
        const tenant = get(namespace.slice(0, end));
        if (tenant) return tenant;
      }
      return undefined;
    },

    set(object) {
      const { metadata, spec, status } = object as Tenant;
      const name = metadata.name ?? '';
      forget(name);
      // What the controller has made sure of, not what somebody writes into a spec.
      const project = status?.projectID;
      if (!project || spec.projectID !== project) return;
      byProject.set(project, name);
      projectOf.set(name, project);
    },

    delete: ({ metadata }) => forget(metadata.name ?? ''),
  };
}
