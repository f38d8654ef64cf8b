import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { AuthorizationAttributes, UserInfo } from '../api/auth.ts';
import type { KubeObject } from '../api/object.ts';
import { tenantGroup, tenantRoleGroup } from '../api/tenancy.ts';
import type { TenantRole } from '../api/tenancy.ts';
import { seededRandom } from '../base/random.ts';
import { defaultRbacObjects } from './default-roles.ts';
import { createRbac, createUnionAuthorizer } from './rbac.ts';
import { withTenantRoles } from './tenant-roles.ts';
import { clusterVisibility, createTenantScope, tenantPartition } from './tenant-scope.ts';

const TENANT_OF: Record<string, string> = {
  acme: 'acme',
  'acme-web': 'acme',
  globex: 'globex',
  'kube-system': '',
};
const NAMESPACED = new Set(['pods', 'secrets', 'events', 'deployments.apps', 'roles']);
const suspended = new Set<string>();

function setUp(nodes: 'hidden' | 'sanitised' = 'hidden') {
  const rbac = createRbac();
  for (const object of defaultRbacObjects()) rbac.set(object);
  const withRoles = withTenantRoles(rbac);
  const scope = createTenantScope({
    tenantOfNamespace: (namespace) => TENANT_OF[namespace],
    isWithin: (ancestor, tenant) => tenant === ancestor || tenant.startsWith(`${ancestor}-`),
    isSuspended: (tenant) => suspended.has(tenant),
    isNamespaced: (group, resource) => NAMESPACED.has(group ? `${resource}.${group}` : resource),
    nodes,
  });
  return { rbac, withRoles, authorizer: createUnionAuthorizer([scope, withRoles]) };
}

const person = (tenant: string, role?: TenantRole): UserInfo => ({
  name: `someone@${tenant}`,
  uid: '1',
  tenant,
  groups: [
    tenantGroup(tenant),
    ...(role ? [tenantRoleGroup(tenant, role)] : []),
    'system:authenticated',
  ],
  extra: {},
});

/** `verb resource.group/subresource namespace name`, or `verb /path` */
function request(user: UserInfo, line: string): AuthorizationAttributes {
  const [verb = '', target = '', namespace = '', name = ''] = line.split(' ');
  const isResourceRequest = !target.startsWith('/');
  const [path = '', subresource = ''] = isResourceRequest ? target.split('/') : [''];
  const [resource = '', ...group] = path.split('.');
  const attributes = { user, verb, isResourceRequest, version: 'v1', resource, subresource };
  const where = { namespace: namespace === '-' ? '' : namespace, name };
  return { ...attributes, ...where, group: group.join('.'), path: isResourceRequest ? '' : target };
}

const admin = person('acme', 'admin');

test('a tenant reaches its own namespaces by its role', () => {
  const { authorizer } = setUp();
  const allowed = (user: UserInfo, line: string) =>
    authorizer.authorize(request(user, line)).decision === 'allow';
  for (const namespace of ['acme', 'acme-web']) {
    assert.ok(allowed(admin, `create pods ${namespace}`));
    assert.ok(allowed(admin, `create rolebindings.rbac.authorization.k8s.io ${namespace}`));
    assert.ok(allowed(person('acme', 'member'), `create pods ${namespace}`));
    assert.ok(!allowed(person('acme', 'member'), `create roles.rbac.authorization.k8s.io acme`));
    assert.ok(allowed(person('acme', 'reader'), `list pods ${namespace}`));
    assert.ok(!allowed(person('acme', 'reader'), `list secrets ${namespace}`));
    assert.ok(!allowed(person('acme', 'reader'), `create pods ${namespace}`));
    assert.ok(!allowed(person('acme'), `list pods ${namespace}`));
  }
  assert.ok(allowed(admin, 'list pods'));
  assert.ok(allowed(admin, 'watch secrets'));
  assert.ok(allowed(admin, 'create namespaces'));
  assert.ok(allowed(admin, 'delete namespaces acme-web acme-web'));
  assert.ok(allowed(admin, 'get storageclasses.storage.k8s.io - fast'));
  assert.ok(allowed(admin, 'get /version'));
});

test('what lies outside is denied alike, whether it exists or not, whatever RBAC grants', () => {
  const { authorizer, rbac } = setUp();
  rbac.set({
    apiVersion: 'rbac.authorization.k8s.io/v1',
    kind: 'ClusterRoleBinding',
    metadata: { name: 'too-much' },
    roleRef: { kind: 'ClusterRole', name: 'cluster-admin' },
    subjects: [{ kind: 'Group', name: 'system:authenticated' }],
  });
  const outside = [
    'list pods globex',
    'list pods no-such-namespace',
    'get secrets kube-system x',
    'delete namespaces globex globex',
    'delete namespaces none none',
    'get namespaces - globex',
    'list persistentvolumes',
    'get nodes - node-1',
    'list certificatesigningrequests.certificates.k8s.io',
    'create certificatesigningrequests.certificates.k8s.io',
    'create tokenreviews.authentication.k8s.io',
    'create subjectaccessreviews.authorization.k8s.io',
    'impersonate users - admin',
    'impersonate groups - system:masters',
    'impersonate serviceaccounts globex default',
    'create clusterrolebindings.rbac.authorization.k8s.io',
    'update clusterroles.rbac.authorization.k8s.io - admin',
    'deletecollection namespaces',
    'update namespaces/finalize acme acme',
    'get tenants.hypernetes.io - globex',
    'get tenants.hypernetes.io/usage - none',
    'list widgets.unknown.example',
    'get /metrics',
    'get /logs',
    'get /apisecret',
  ];
  for (const line of outside) {
    const decision = authorizer.authorize(request(admin, line));
    assert.deepEqual(decision, { decision: 'deny', reason: '' }, line);
  }
  assert.equal(authorizer.authorize(request(admin, 'get pods acme x')).decision, 'allow');
});

test('nodes are shown where the operator chooses so, and only to be read', () => {
  const { withRoles, authorizer } = setUp('sanitised');
  const decide = (line: string) => authorizer.authorize(request(admin, line)).decision;
  assert.equal(decide('list nodes'), 'allow');
  assert.equal(decide('patch nodes - node-1'), 'deny');
  assert.equal(decide('get nodes/proxy - node-1'), 'deny');
  const { rules } = withRoles.rulesFor(admin, 'acme');
  assert.ok(rules.some(({ resources }) => resources?.includes('pods')));
});

test('a suspended tenant reads, changes nothing, and can still ask what it may', () => {
  const { authorizer } = setUp();
  suspended.add('acme');
  try {
    const decide = (line: string) => authorizer.authorize(request(admin, line));
    assert.equal(decide('list pods acme').decision, 'allow');
    for (const line of ['create pods acme', 'get pods/exec acme x', 'delete pods acme x']) {
      const reason = 'tenant "acme" is suspended';
      assert.deepEqual(decide(line), { decision: 'deny', reason }, line);
    }
    const review = decide('create selfsubjectaccessreviews.authorization.k8s.io');
    assert.equal(review.decision, 'allow');
  } finally {
    suspended.clear();
  }
});

test('nothing outside of the tenant is ever allowed', () => {
  const seed = Date.now() % 2 ** 32;
  const random = seededRandom(seed);
  const pick = <T>(items: readonly T[]): T => items[Math.floor(random.next() * items.length)] as T;
  const { authorizer, rbac } = setUp('sanitised');
  rbac.set({
    apiVersion: 'rbac.authorization.k8s.io/v1',
    kind: 'ClusterRoleBinding',
    metadata: { name: 'too-much' },
    roleRef: { kind: 'ClusterRole', name: 'cluster-admin' },
    subjects: [{ kind: 'Group', name: 'system:authenticated' }],
  });
  const verbs = ['get', 'list', 'watch', 'create', 'update', 'patch', 'delete', 'impersonate', 'x'];
  const kinds = [...NAMESPACED, 'nodes', 'namespaces', 'persistentvolumes', 'users'];
  const namespaces = [...Object.keys(TENANT_OF), '-', 'none'];
  let allowedCount = 0;
  for (let round = 0; round < 20_000; round += 1) {
    const subresource = pick(['', '', '', '/status', '/exec']);
    const line = `${pick(verbs)} ${pick(kinds)}${subresource} ${pick(namespaces)} ${pick(['', 'a'])}`;
    const attributes = request(admin, line);
    if (authorizer.authorize(attributes).decision !== 'allow') continue;
    allowedCount += 1;
    const { group, resource, namespace, verb } = attributes;
    const isOwn = TENANT_OF[namespace] === 'acme';
    const isConfined = !namespace && ['list', 'watch'].includes(verb);
    const isVisible = clusterVisibility(group, resource) !== undefined && !namespace;
    assert.ok(isOwn || isConfined || isVisible, `seed ${seed}: ${line}`);
  }
  assert.ok(allowedCount > 100, `only ${allowedCount} were allowed`);
});

test('an object is whose its namespace is', () => {
  const namespace = (name: string, tenant?: string): KubeObject => ({
    apiVersion: 'v1',
    kind: 'Namespace',
    metadata: { name, ...(tenant ? { labels: { 'hypernetes.io/tenant': tenant } } : {}) },
  });
  const pod: KubeObject = { apiVersion: 'v1', kind: 'Pod', metadata: { name: 'a' } };
  const none = () => undefined;
  const key = { resource: 'namespaces', namespace: '', name: 'acme' };
  assert.equal(tenantPartition(key, namespace('acme', 'acme'), none), 'acme');
  assert.equal(tenantPartition(key, namespace('acme'), none), '');
  const inside = { resource: 'pods', namespace: 'acme', name: 'a' };
  assert.equal(
    tenantPartition(inside, pod, ({ resource, name }) =>
      resource === 'namespaces' && name === 'acme' ? { partition: 'acme' } : undefined,
    ),
    'acme',
  );
  assert.throws(() => tenantPartition(inside, pod, none), /namespaces "acme" not found/);
});
