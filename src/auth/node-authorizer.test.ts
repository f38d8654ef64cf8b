import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { AuthorizationAttributes, UserInfo } from '../api/auth.ts';
import type { KubeObject } from '../api/object.ts';
import { createNodeAuthorizer } from './node-authorizer.ts';
import { checkNodeRestriction } from './node-restriction.ts';

const user: UserInfo = {
  name: 'system:node:n1',
  uid: '',
  groups: ['system:nodes', 'system:authenticated'],
  extra: {},
};

function ask(line: string, more: Partial<AuthorizationAttributes> = {}): AuthorizationAttributes {
  const [verb = '', target = '', namespace = '', name = ''] = line.split(' ');
  const [path = '', subresource = ''] = target.split('/');
  const [resource = '', ...group] = path.split('.');
  return {
    user,
    verb,
    isResourceRequest: true,
    group: group.join('.'),
    version: 'v1',
    resource,
    subresource,
    namespace,
    name,
    path: '',
    ...more,
  };
}

const pod = (name: string, nodeName: string | undefined): KubeObject => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name, namespace: 'ns' },
  spec: {
    nodeName,
    serviceAccountName: 'app',
    imagePullSecrets: [{ name: 'pull' }],
    containers: [
      {
        env: [{ valueFrom: { secretKeyRef: { name: 'env-secret' } } }],
        envFrom: [{ configMapRef: { name: 'env-map' } }],
      },
    ],
    initContainers: [{ envFrom: [{ secretRef: { name: 'init-secret' } }] }],
    volumes: [
      { name: 'a', secret: { secretName: 'volume-secret' } },
      { name: 'b', projected: { sources: [{ configMap: { name: 'projected-map' } }] } },
      { name: 'c', persistentVolumeClaim: { claimName: 'claim' } },
      { name: 'd', csi: { nodePublishSecretRef: { name: 'csi-secret' } } },
    ],
  },
});

const claim: KubeObject = {
  apiVersion: 'v1',
  kind: 'PersistentVolumeClaim',
  metadata: { name: 'claim', namespace: 'ns' },
  spec: { volumeName: 'volume' },
};

const REFERRED = [
  'get secrets ns pull',
  'watch secrets ns env-secret',
  'get configmaps ns env-map',
  'list secrets ns init-secret',
  'get secrets ns volume-secret',
  'get configmaps ns projected-map',
  'get persistentvolumeclaims ns claim',
  'get persistentvolumes  volume',
  'get secrets ns csi-secret',
  'create serviceaccounts/token ns app',
  'get pods ns p',
  'patch pods/status ns p',
  'delete pods ns p',
];

test('a node reads what its pods refer to, and only while they do', () => {
  const authorizer = createNodeAuthorizer();
  const decide = (line: string) => authorizer.authorize(ask(line)).decision;
  authorizer.set(claim);
  authorizer.set(pod('p', undefined));
  for (const line of REFERRED) assert.equal(decide(line), 'no-opinion', line);
  authorizer.set(pod('p', 'n1'));
  for (const line of REFERRED) assert.equal(decide(line), 'allow', line);
  authorizer.set(pod('q', 'n1'));
  authorizer.delete(pod('p', 'n1'));
  assert.equal(decide('get secrets ns pull'), 'allow');
  assert.equal(decide('patch pods/status ns p'), 'no-opinion');
  authorizer.set(pod('q', 'n2'));
  for (const line of REFERRED) assert.equal(decide(line), 'no-opinion', line);
});

test('a node never reads a whole kind, nor anything in another namespace', () => {
  const authorizer = createNodeAuthorizer();
  authorizer.set(pod('p', 'n1'));
  const refused = [
    'list secrets ns ',
    'list secrets  ',
    'list services  ',
    'watch services other ',
    'get endpoints other e',
    'list endpointslices.discovery.k8s.io  ',
    'create events other ',
    'create tokenreviews.authentication.k8s.io  ',
    'create subjectaccessreviews.authorization.k8s.io  ',
    'get secrets other pull',
    'update secrets ns pull',
    'delete configmaps ns env-map',
    'list pods  ',
    'create pods/exec ns p',
    'get pods/log ns p',
    'list nodes  ',
    'get nodes  n2',
    'patch nodes/status  n2',
    'delete nodes  n1',
    'get nodes/proxy  n1',
    'update leases.coordination.k8s.io kube-node-lease n2',
    'create leases.coordination.k8s.io kube-system x',
    'create clusterrolebindings.rbac.authorization.k8s.io  x',
    'update certificatesigningrequests.certificates.k8s.io/approval  x',
  ];
  for (const line of refused) {
    assert.equal(authorizer.authorize(ask(line)).decision, 'no-opinion', line);
  }
});

test('a node writes about itself and lists its own pods', () => {
  const authorizer = createNodeAuthorizer();
  const allowed = [
    'create nodes  ',
    'get nodes  n1',
    'watch nodes  n1',
    'patch nodes/status  n1',
    'update leases.coordination.k8s.io kube-node-lease n1',
    'create events default ',
    'create certificatesigningrequests.certificates.k8s.io  ',
    'watch runtimeclasses.node.k8s.io  ',
  ];
  for (const line of allowed) {
    assert.equal(authorizer.authorize(ask(line)).decision, 'allow', line);
  }
  const list = (fieldSelector: string) =>
    authorizer.authorize(ask('watch pods  ', { fieldSelector })).decision;
  assert.equal(list('spec.nodeName=n1'), 'allow');
  assert.equal(list('status.phase!=Failed,spec.nodeName==n1'), 'allow');
  assert.equal(list('spec.nodeName=n2'), 'no-opinion');
  assert.equal(list('spec.nodeName!=n1'), 'no-opinion');
  // One requirement with a comma in its value, which all pods fulfil.
  assert.equal(list('status.phase!=x\\,spec.nodeName=n1'), 'no-opinion');
  assert.equal(list('status.phase!=x\\\\,spec.nodeName=n1'), 'allow');
  const stranger = { ...user, groups: ['system:authenticated'] };
  assert.equal(
    authorizer.authorize(ask('get nodes  n1', { user: stranger })).decision,
    'no-opinion',
  );
});

test('checkNodeRestriction() keeps a node from changing another or fencing itself', () => {
  const node = (name: string, more: object = {}, taints: unknown[] = []): KubeObject => ({
    apiVersion: 'v1',
    kind: 'Node',
    metadata: { name, ...more },
    spec: { taints },
  });
  const base = { user, group: '', resource: 'nodes', subresource: '' } as const;
  const own = node('n1');
  checkNodeRestriction({ ...base, operation: 'create', object: own });
  checkNodeRestriction({ ...base, operation: 'create', object: node('n1', {}, [{ key: 'x' }]) });
  const refuse = (write: Parameters<typeof checkNodeRestriction>[0], why: RegExp) =>
    assert.throws(() => checkNodeRestriction(write), why);
  refuse({ ...base, operation: 'create', object: node('n2') }, /not allowed to modify node "n2"/);
  const labels = { labels: { 'a.node-restriction.kubernetes.io/x': '1' } };
  refuse(
    { ...base, operation: 'update', object: node('n1', labels), oldObject: own },
    /modify labels/,
  );
  const labelled = (label: string) => node('n1', { labels: { [label]: '1' } });
  for (const label of ['kubernetes.io/arch', 'node.kubernetes.io/instance-type', 'a.example/b']) {
    checkNodeRestriction({ ...base, operation: 'create', object: labelled(label) });
  }
  for (const label of ['node-role.kubernetes.io/control-plane', 'k8s.io/x']) {
    refuse({ ...base, operation: 'create', object: labelled(label) }, /modify labels/);
  }
  const labelledPod = { ...pod('p', 'n1'), metadata: { name: 'p', labels: { app: 'bank' } } };
  const podStatus = {
    ...base,
    operation: 'update',
    resource: 'pods',
    subresource: 'status',
  } as const;
  refuse(
    { ...podStatus, object: labelledPod, oldObject: pod('p', 'n1') },
    /cannot update labels through pod status/,
  );
  checkNodeRestriction({ ...podStatus, object: labelledPod, oldObject: labelledPod });
  refuse(
    { ...base, operation: 'update', object: node('n1', {}, [{ key: 'x' }]), oldObject: own },
    /modify taints/,
  );
  const token = {
    ...base,
    operation: 'create',
    resource: 'serviceaccounts',
    subresource: 'token',
  } as const;
  const request = (boundObjectRef?: object): KubeObject => ({
    apiVersion: 'authentication.k8s.io/v1',
    kind: 'TokenRequest',
    metadata: { name: 'app' },
    spec: { boundObjectRef },
  });
  refuse({ ...token, object: request() }, /bound to a pod/);
  refuse({ ...token, object: request({ kind: 'Pod' }) }, /without its uid/);
  const bound = { ...token, object: request({ kind: 'Pod', name: 'p', uid: 'u' }) };
  checkNodeRestriction({ ...bound, boundPod: pod('p', 'n1') });
  refuse({ ...bound, boundPod: pod('p', 'n2') }, /scheduled on a different node/);
  refuse(bound, /scheduled on a different node/);
  checkNodeRestriction({
    ...base,
    user: { ...user, groups: [] },
    operation: 'create',
    object: node('x'),
  });
});
