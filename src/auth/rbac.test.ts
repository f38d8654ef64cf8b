import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { AuthorizationAttributes, UserInfo } from '../api/auth.ts';
import type { KubeObject } from '../api/object.ts';
import { StatusError } from '../api/status.ts';
import type { Random } from '../base/random.ts';
import { seededRandom } from '../base/random.ts';
import { defaultRbacObjects } from './default-roles.ts';
import { checkEscalation, uncoveredRules } from './escalation.ts';
import type { PolicyRule, RoleRef, Subject } from './rbac.ts';
import { createRbac, createUnionAuthorizer } from './rbac.ts';

const person = (name: string, ...groups: string[]): UserInfo => ({
  name,
  uid: '',
  groups: [...groups, 'system:authenticated'],
  extra: {},
});

function request(user: UserInfo, line: string): AuthorizationAttributes {
  const [verb = '', target = '', namespace = '', name = ''] = line.split(' ');
  const isResourceRequest = !target.startsWith('/');
  const [path = '', subresource = ''] = isResourceRequest ? target.split('/') : [''];
  const [resource = '', ...group] = path.split('.');
  return {
    user,
    verb,
    isResourceRequest,
    group: group.join('.'),
    version: 'v1',
    resource,
    subresource,
    namespace,
    name,
    path: isResourceRequest ? '' : target,
  };
}

function defaults() {
  const rbac = createRbac();
  for (const object of defaultRbacObjects()) rbac.set(object);
  return rbac;
}

const binding = (
  namespace: string,
  name: string,
  ref: RoleRef,
  subjects: Subject[],
): KubeObject => ({
  apiVersion: 'rbac.authorization.k8s.io/v1',
  kind: namespace ? 'RoleBinding' : 'ClusterRoleBinding',
  metadata: namespace ? { name, namespace } : { name },
  roleRef: ref,
  subjects,
});

test('the default roles let each component do its work and no more', () => {
  const rbac = defaults();
  const controllers = person('system:kube-controller-manager');
  const cases: [UserInfo, string, boolean][] = [
    [person('root', 'system:masters'), 'delete nodes  n', true],
    [person('bob'), 'get pods ns p', false],
    [person('bob'), 'get /apis/apps', true],
    [person('bob'), 'create selfsubjectaccessreviews.authorization.k8s.io', true],
    [{ ...person('anon'), groups: ['system:unauthenticated'] }, 'get /version', true],
    [{ ...person('anon'), groups: ['system:unauthenticated'] }, 'get /apis', false],
    [person('system:kube-scheduler'), 'create pods/binding ns p', true],
    [person('system:kube-scheduler'), 'get secrets ns s', false],
    [controllers, 'create replicasets.apps ns x', true],
    [controllers, 'update namespaces/finalize  ns', true],
    [controllers, 'delete widgets.example.com ns x', true],
    [controllers, 'patch deployments.apps/status ns x', true],
    [controllers, 'create clusterrolebindings.rbac.authorization.k8s.io', false],
    [controllers, 'impersonate users  root', false],
    [controllers, 'create pods/exec ns p', false],
    [
      person('system:bootstrap:abc', 'system:bootstrappers:hypernetes:nodes'),
      'create certificatesigningrequests.certificates.k8s.io',
      true,
    ],
    [person('system:node:n1', 'system:nodes'), 'get secrets ns s', false],
  ];
  for (const [user, line, expected] of cases) {
    const { decision } = rbac.authorize(request(user, line));
    assert.equal(decision === 'allow', expected, `${user.name}: ${line}`);
  }
});

test('a role binding holds in its namespace, for its subjects, until it is removed', () => {
  const rbac = defaults();
  const edit = binding('ns', 'editors', { kind: 'ClusterRole', name: 'edit' }, [
    { kind: 'User', name: 'ann' },
    { kind: 'ServiceAccount', name: 'robot' },
  ]);
  rbac.set(edit);
  const allows = (user: UserInfo, line: string) =>
    rbac.authorize(request(user, line)).decision === 'allow';
  const ann = person('ann');
  assert.ok(allows(ann, 'create pods ns'));
  assert.ok(allows(person('system:serviceaccount:ns:robot'), 'get pods/log ns p'));
  assert.ok(!allows(person('system:serviceaccount:other:robot'), 'get pods ns p'));
  assert.ok(!allows(ann, 'create pods other'));
  assert.ok(!allows(ann, 'list pods '));
  assert.ok(!allows(ann, 'create roles.rbac.authorization.k8s.io ns'));
  assert.match(
    rbac.authorize(request(ann, 'get pods ns p')).reason,
    /RoleBinding "editors\/ns" of ClusterRole "edit" to User "ann"/,
  );
  rbac.set({ ...edit, subjects: [{ kind: 'User', name: 'eve' }] });
  assert.ok(!allows(ann, 'create pods ns') && allows(person('eve'), 'create pods ns'));
  rbac.delete(edit);
  assert.ok(!allows(person('eve'), 'create pods ns'));
});

test('a binding to a role that is not there grants nothing and says so', () => {
  const rbac = createRbac();
  rbac.set(binding('ns', 'b', { kind: 'Role', name: 'gone' }, [{ kind: 'User', name: 'ann' }]));
  const result = rbac.authorize(request(person('ann'), 'get pods ns p'));
  assert.equal(result.decision, 'no-opinion');
  assert.equal(result.reason, 'RBAC: role.rbac.authorization.k8s.io "gone" not found');
  const union = createUnionAuthorizer([rbac]);
  assert.equal(union.authorize(request(person('ann'), 'get pods ns p')).decision, 'deny');
});

test('nobody grants what they do not hold', () => {
  const rbac = defaults();
  const ann = person('ann');
  rbac.set(
    binding('ns', 'b', { kind: 'ClusterRole', name: 'admin' }, [{ kind: 'User', name: 'ann' }]),
  );
  const role = (rules: PolicyRule[]): KubeObject => ({
    apiVersion: 'rbac.authorization.k8s.io/v1',
    kind: 'Role',
    metadata: { name: 'r', namespace: 'ns' },
    rules,
  });
  const check = (object: KubeObject, oldObject?: KubeObject) =>
    checkEscalation(rbac, rbac, { user: ann, object, oldObject });
  check(role([{ apiGroups: [''], resources: ['pods'], verbs: ['get', 'create'] }]));
  const nodes = role([{ apiGroups: [''], resources: ['nodes', 'pods'], verbs: ['get', 'delete'] }]);
  assert.throws(
    () => check(nodes),
    (error: unknown) => {
      assert.ok(error instanceof StatusError && error.reason === 'Forbidden');
      assert.equal(
        error.message,
        'roles.rbac.authorization.k8s.io "r" is forbidden: user "ann" ' +
          '(groups=["system:authenticated"]) is attempting to grant ' +
          'RBAC permissions not currently held:\n' +
          '{APIGroups:[""], Resources:["nodes"], Verbs:["get" "delete"]}',
      );
      return true;
    },
  );
  check({ ...nodes, metadata: { ...nodes.metadata, labels: { a: 'b' } } }, nodes);
  assert.throws(
    () => check(role([{ apiGroups: ['*'], resources: ['*'], verbs: ['*'] }])),
    /Forbidden|not currently held/,
  );
  check(binding('ns', 'x', { kind: 'ClusterRole', name: 'view' }, []));
  assert.throws(
    () => check(binding('ns', 'x', { kind: 'ClusterRole', name: 'cluster-admin' }, [])),
    /not currently held/,
  );
  assert.throws(
    () => check(binding('ns', 'x', { kind: 'Role', name: 'none' }, [])),
    /"none" not found/,
  );
  assert.throws(
    () => check(binding('other', 'x', { kind: 'ClusterRole', name: 'view' }, [])),
    /not currently held/,
  );
  rbac.set({
    ...role([
      {
        apiGroups: ['rbac.authorization.k8s.io'],
        resources: ['clusterroles'],
        verbs: ['bind'],
        resourceNames: ['cluster-admin'],
      },
    ]),
  });
  rbac.set(binding('ns', 'binder', { kind: 'Role', name: 'r' }, [{ kind: 'User', name: 'ann' }]));
  check(binding('ns', 'x', { kind: 'ClusterRole', name: 'cluster-admin' }, []));
});

test('an aggregating ClusterRole is for who holds everything', () => {
  const rbac = defaults();
  const object: KubeObject = {
    apiVersion: 'rbac.authorization.k8s.io/v1',
    kind: 'ClusterRole',
    metadata: { name: 'x' },
    aggregationRule: { clusterRoleSelectors: [{}] },
  };
  assert.throws(
    () => checkEscalation(rbac, rbac, { user: person('ann'), object }),
    /must have cluster-admin privileges/,
  );
  checkEscalation(rbac, rbac, { user: person('root', 'system:masters'), object });
});

test('uncoveredRules() knows wildcards, names, subresources and paths', () => {
  const held: PolicyRule[] = [
    { verbs: ['get'], apiGroups: ['*'], resources: ['*/scale', 'pods'] },
    { verbs: ['*'], apiGroups: [''], resources: ['secrets'], resourceNames: ['a', 'b'] },
    { verbs: ['get'], nonResourceURLs: ['/metrics/*'] },
  ];
  const covered = (rule: PolicyRule) => uncoveredRules(held, [rule]).length === 0;
  assert.ok(covered({ verbs: ['get'], apiGroups: ['apps'], resources: ['deployments/scale'] }));
  assert.ok(!covered({ verbs: ['get'], apiGroups: ['apps'], resources: ['deployments'] }));
  assert.ok(!covered({ verbs: ['get'], apiGroups: [''], resources: ['pods/log'] }));
  assert.ok(
    covered({ verbs: ['update'], apiGroups: [''], resources: ['secrets'], resourceNames: ['b'] }),
  );
  assert.ok(!covered({ verbs: ['get'], apiGroups: [''], resources: ['secrets'] }));
  assert.ok(!covered({ verbs: ['*'], apiGroups: [''], resources: ['pods'] }));
  assert.ok(covered({ verbs: ['get'], nonResourceURLs: ['/metrics/x', '/metrics/*'] }));
  assert.ok(!covered({ verbs: ['get'], nonResourceURLs: ['/metrics'] }));
});

/** The rules as the documentation states them, by looking through everything on each request. */
function naiveAllows(objects: KubeObject[], attributes: AuthorizationAttributes): boolean {
  const { user } = attributes;
  if (user.groups.includes('system:masters')) return true;
  return objects.some((candidate) => {
    if (!candidate.kind.endsWith('Binding')) return false;
    const space = candidate.metadata.namespace;
    if (space && space !== attributes.namespace) return false;
    if (space && !attributes.isResourceRequest) return false;
    const isSubject = (candidate.subjects as Subject[]).some(
      (subject) =>
        (subject.kind === 'User' && subject.name === user.name) ||
        (subject.kind === 'Group' && user.groups.includes(subject.name)) ||
        (subject.kind === 'ServiceAccount' &&
          user.name ===
            `system:serviceaccount:${subject.namespace ?? space ?? ''}:${subject.name}`),
    );
    if (!isSubject) return false;
    const ref = candidate.roleRef as RoleRef;
    const role = objects.find(
      ({ kind, metadata }) =>
        kind === ref.kind &&
        metadata.name === ref.name &&
        (kind === 'ClusterRole' || metadata.namespace === space),
    );
    return ((role?.rules ?? []) as PolicyRule[]).some((rule) => naiveRule(rule, attributes));
  });
}

function naiveRule(rule: PolicyRule, a: AuthorizationAttributes): boolean {
  const any = (list: string[] | undefined, ...wanted: string[]) =>
    (list ?? []).some((item) => item === '*' || wanted.includes(item));
  if (!any(rule.verbs, a.verb)) return false;
  if (!a.isResourceRequest) {
    return (rule.nonResourceURLs ?? []).some((url) =>
      url.endsWith('*') ? a.path.startsWith(url.slice(0, -1)) : url === a.path,
    );
  }
  const names = a.subresource
    ? [`${a.resource}/${a.subresource}`, `*/${a.subresource}`]
    : [a.resource];
  const hasName = !rule.resourceNames?.length || rule.resourceNames.includes(a.name);
  return any(rule.apiGroups, a.group) && any(rule.resources, ...names) && hasName;
}

function pick<T>(random: Random, list: T[]): T {
  return list[Math.floor(random.next() * list.length)] as T;
}

function some<T>(random: Random, list: T[]): T[] {
  return list.filter(() => random.next() < 0.4);
}

function randomObject(random: Random): KubeObject {
  const kind = pick(random, ['Role', 'ClusterRole', 'RoleBinding', 'ClusterRoleBinding']);
  const isNamespaced = !kind.startsWith('Cluster');
  const metadata = {
    name: pick(random, ['a', 'b', 'c']),
    ...(isNamespaced ? { namespace: pick(random, ['ns1', 'ns2']) } : {}),
  };
  const apiVersion = 'rbac.authorization.k8s.io/v1';
  if (kind.endsWith('Role')) {
    const rules = Array.from({ length: 1 + Math.floor(random.next() * 2) }, (): PolicyRule =>
      random.next() < 0.2
        ? {
            verbs: some(random, ['get', 'post']),
            nonResourceURLs: some(random, ['*', '/x', '/y/*']),
          }
        : {
            verbs: some(random, ['get', 'list', '*']),
            apiGroups: some(random, ['', 'apps', '*']),
            resources: some(random, ['pods', 'pods/log', '*/scale', 'deployments', '*']),
            ...(random.next() < 0.3 ? { resourceNames: some(random, ['n1', 'n2']) } : {}),
          },
    );
    return { apiVersion, kind, metadata, rules };
  }
  const roleKind = isNamespaced ? pick(random, ['Role', 'ClusterRole']) : 'ClusterRole';
  const subjects = some<Subject>(random, [
    { kind: 'User', name: 'u1' },
    { kind: 'Group', name: 'g1' },
    { kind: 'ServiceAccount', name: 'sa', namespace: 'ns1' },
    { kind: 'User', name: 'g1' },
  ]);
  const roleRef = { kind: roleKind, name: pick(random, ['a', 'b', 'c']) };
  return { apiVersion, kind, metadata, roleRef, subjects };
}

test('the evaluator decides as a naive one does, over any history of changes', () => {
  const seed = 35;
  const random = seededRandom(seed);
  let allowedCount = 0;
  for (let history = 0; history < 40; history++) {
    const rbac = createRbac();
    const objects = new Map<string, KubeObject>();
    for (let step = 0; step < 60; step++) {
      const object = randomObject(random);
      const id = `${object.kind}/${object.metadata.namespace}/${object.metadata.name}`;
      if (random.next() < 0.2) {
        objects.delete(id);
        rbac.delete(object);
      } else {
        objects.set(id, object);
        rbac.set(object);
      }
      const user = pick(random, [
        person('u1'),
        person('u2', 'g1'),
        person('system:serviceaccount:ns1:sa'),
        person('g1'),
      ]);
      const verb = pick(random, ['get', 'list', 'post']);
      const target = pick(random, ['pods', 'pods/log', 'deployments.apps', '/x', '/y/z', '/y']);
      const where = `${pick(random, ['ns1', 'ns2', ''])} ${pick(random, ['n1', 'n3', ''])}`;
      const line = `${verb} ${target} ${where}`;
      const attributes = request(user, line);
      const expected = naiveAllows([...objects.values()], attributes);
      allowedCount += Number(expected);
      const actual = rbac.authorize(attributes).decision === 'allow';
      assert.equal(actual, expected, `seed ${seed}, history ${history}, step ${step}: ${line}`);
    }
  }
  assert.ok(allowedCount > 100, `only ${allowedCount} requests were allowed`);
});
