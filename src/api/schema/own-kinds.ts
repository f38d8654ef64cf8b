import { columnsOf } from './columns.ts';
import type { ObjectType, ResourceRow, SchemaTable, TypeNode } from './schema.ts';
import { builtinTable, extendTable } from './table.ts';

/** The kinds of `hypernetes.io`: rows and types like Kubernetes' own, and served the same way. */
const GROUP = 'hypernetes.io';
const VERSION = 'v1';
const PREFIX = 'io.hypernetes.v1.';
const AUTHORIZATION = 'io.k8s.api.authorization.v1.';
const META = 'io.k8s.apimachinery.pkg.apis.meta.v1.';

const STRING: TypeNode = { scalar: 'string' };
const QUANTITIES: TypeNode = { values: { scalar: 'string', format: 'quantity' } };
const NAMES: TypeNode = { items: STRING, listType: 'set' };
const ref = (name: string): TypeNode => ({ ref: PREFIX + name });
const oneOf = (...values: string[]): TypeNode => ({ scalar: 'string', enum: values });

const HEAD: Record<string, TypeNode> = { apiVersion: STRING, kind: STRING };

function type(name: string, fields: Record<string, TypeNode>, required: string[] = []): ObjectType {
  // Without a prototype, a client's field called "constructor" is as unknown as any other.
  const bare = Object.assign(Object.create(null) as Record<string, TypeNode>, fields);
  return { name: PREFIX + name, fields: bare, required };
}

const TYPES: ObjectType[] = [
  {
    ...type('Tenant', {
      ...HEAD,
      metadata: { ref: `${META}ObjectMeta`, default: {} },
      spec: { ...ref('TenantSpec'), default: {} },
      status: { ...ref('TenantStatus'), default: {} },
    }),
    kinds: [[GROUP, VERSION, 'Tenant']],
  },
  {
    ...type(
      'TenantList',
      {
        ...HEAD,
        metadata: { ref: `${META}ListMeta`, default: {} },
        items: { items: ref('Tenant') },
      },
      ['items'],
    ),
    kinds: [[GROUP, VERSION, 'TenantList']],
  },
  {
    ...type('AccessExplanation', {
      ...HEAD,
      metadata: { ref: `${META}ObjectMeta`, default: {} },
      spec: { ref: `${AUTHORIZATION}SubjectAccessReviewSpec`, default: {} },
      status: ref('AccessExplanationStatus'),
    }),
    kinds: [[GROUP, VERSION, 'AccessExplanation']],
  },
  type('AccessExplanationStatus', {
    allowed: { scalar: 'boolean' },
    reason: STRING,
    missing: STRING,
    clusterRoles: { items: STRING },
    user: ref('ExplainedUser'),
    steps: { items: ref('AuthorizationStep'), listType: 'atomic' },
  }),
  type('ExplainedUser', { username: STRING, groups: { items: STRING }, tenant: STRING }),
  type('AuthorizationStep', {
    authorizer: STRING,
    decision: oneOf('allow', 'deny', 'no-opinion'),
    reason: STRING,
  }),
  type('TenantSpec', {
    displayName: STRING,
    parent: STRING,
    projectID: STRING,
    suspended: { scalar: 'boolean' },
    quota: ref('TenantQuota'),
    members: {
      items: ref('TenantMember'),
      listType: 'map',
      listMapKeys: ['kind', 'domain', 'name', 'role'],
    },
    defaults: ref('TenantDefaults'),
    allowed: ref('TenantAllowed'),
  }),
  type('TenantQuota', { hard: QUANTITIES }),
  type(
    'TenantMember',
    {
      kind: oneOf('User', 'Group'),
      name: STRING,
      domain: { ...STRING, default: 'Default' },
      role: oneOf('admin', 'member', 'reader'),
    },
    ['kind', 'name', 'role'],
  ),
  type('TenantDefaults', {
    network: STRING,
    runtimeClassName: STRING,
    resources: QUANTITIES,
    podSecurity: oneOf('privileged', 'baseline', 'restricted'),
  }),
  type('TenantAllowed', {
    storageClasses: NAMES,
    runtimeClasses: NAMES,
    priorityClasses: NAMES,
    kernels: NAMES,
  }),
  type('TenantStatus', {
    phase: oneOf('Pending', 'Active', 'Suspended', 'Terminating'),
    projectID: STRING,
    namespaceCount: { scalar: 'integer', format: 'int32' },
    quota: ref('TenantQuotaStatus'),
    members: { items: ref('TenantMember'), listType: 'atomic' },
    conditions: {
      items: { ref: `${META}Condition` },
      listType: 'map',
      listMapKeys: ['type'],
    },
  }),
  type('TenantQuotaStatus', { hard: QUANTITIES, used: QUANTITIES }),
];

const kindTenant = { group: GROUP, version: VERSION, kind: 'Tenant' };
const status = { name: 'status', verbs: ['get', 'patch', 'update'] };

const ROWS: ResourceRow[] = [
  {
    ...{ group: GROUP, version: VERSION, kind: 'Tenant', resource: 'tenants', singular: 'tenant' },
    shortNames: ['tn'],
    categories: [],
    namespaced: false,
    verbs: ['create', 'delete', 'get', 'list', 'patch', 'update', 'watch'],
    type: `${PREFIX}Tenant`,
    subresources: [
      { ...status, ...kindTenant },
      { name: 'audit', verbs: ['get'], ...kindTenant },
      { name: 'usage', verbs: ['get'], ...kindTenant },
    ],
    columns: columnsOf(GROUP, 'tenants'),
    storageVersion: `${GROUP}/${VERSION}`,
  },
  {
    ...{ group: GROUP, version: VERSION, kind: 'AccessExplanation' },
    ...{ resource: 'accessexplanations', singular: 'accessexplanation' },
    ...{ shortNames: [], categories: [], namespaced: false, verbs: ['create'], subresources: [] },
    type: `${PREFIX}AccessExplanation`,
    columns: columnsOf(GROUP, 'accessexplanations'),
    storageVersion: `${GROUP}/${VERSION}`,
  },
];

let product: SchemaTable | undefined;

/** Kubernetes' kinds and ours: what a server serves. Made once; the same value each time. */
export function productTable(): SchemaTable {
  product ??= extendTable(builtinTable(), ROWS, TYPES);
  return product;
}
