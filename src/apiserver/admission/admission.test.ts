import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createRbac } from '../../auth/rbac.ts';
import type { KubeObject } from '../../api/object.ts';
import { NS, pod, startHarness } from '../testing/harness.ts';

interface PodSpec {
  serviceAccountName: string;
  priority: number;
  preemptionPolicy: string;
  tolerations: { key: string }[];
  volumes: { name: string; projected: { sources: object[] } }[];
  containers: { volumeMounts: { mountPath: string }[]; resources: Record<string, object> }[];
  overhead: object;
}

function specOf(object: KubeObject): PodSpec {
  return object.spec as unknown as PodSpec;
}

test('a pod gets its service account, its token, its tolerations and its first stamp', async () => {
  await using api = await startHarness();
  const forged = { metadata: { annotations: { 'timeline.hypernetes.io/started': 'x', a: 'b' } } };
  const created = await api.want('POST', `${NS}/pods`, pod('a', forged));
  const spec = specOf(created);
  assert.equal(spec.serviceAccountName, 'default');
  assert.match(spec.volumes[0]?.name ?? '', /^kube-api-access-[a-z0-9]{5}$/);
  assert.equal(spec.volumes[0]?.projected.sources.length, 3);
  const path = '/var/run/secrets/kubernetes.io/serviceaccount';
  assert.equal(spec.containers[0]?.volumeMounts[0]?.mountPath, path);
  assert.equal(spec.tolerations.length, 2);
  assert.deepEqual(created.metadata.annotations, {
    a: 'b',
    'timeline.hypernetes.io/admitted': '2026-01-01T00:00:00.000Z',
  });
  const plain = { spec: { automountServiceAccountToken: false } };
  const without = await api.want('POST', `${NS}/pods`, pod('b', plain));
  assert.equal(specOf(without).volumes, undefined);
  const unknown = pod('c', { spec: { serviceAccountName: 'nobody' } });
  const refused = await api.send('POST', `${NS}/pods`, unknown);
  assert.equal(refused.code, 403);
  assert.match(refused.body.message ?? '', /error looking up service account default\/nobody/);
});

test('a pod waits a moment for the default account of a new namespace', async () => {
  await using api = await startHarness();
  await api.want('POST', '/api/v1/namespaces', { metadata: { name: 'new' } });
  const creation = api.send('POST', '/api/v1/namespaces/new/pods', pod('a'));
  await api.clock.advance(100);
  await api.want('POST', '/api/v1/namespaces/new/serviceaccounts', {
    metadata: { name: 'default' },
  });
  await api.clock.advance(100);
  assert.equal((await creation).code, 201);
});

test('priority classes become numbers, and unknown ones are refused', async () => {
  await using api = await startHarness();
  const classes = '/apis/scheduling.k8s.io/v1/priorityclasses';
  await api.want('POST', classes, {
    metadata: { name: 'high' },
    value: 1000,
    preemptionPolicy: 'Never',
  });
  const high = pod('a', { spec: { priorityClassName: 'high' } });
  const spec = specOf(await api.want('POST', `${NS}/pods`, high));
  assert.deepEqual([spec.priority, spec.preemptionPolicy], [1000, 'Never']);
  assert.equal(specOf(await api.want('POST', `${NS}/pods`, pod('b'))).priority, 0);
  const unknown = pod('c', { spec: { priorityClassName: 'none' } });
  const refused = await api.send('POST', `${NS}/pods`, unknown);
  assert.match(refused.body.message ?? '', /no PriorityClass with name none was found/);
  const boasting = pod('d', { spec: { priority: 5 } });
  assert.equal((await api.send('POST', `${NS}/pods`, boasting)).code, 403);
});

test('limit ranges fill in and bound what containers ask for', async () => {
  await using api = await startHarness();
  await api.want('POST', `${NS}/limitranges`, {
    metadata: { name: 'l' },
    spec: {
      limits: [
        {
          type: 'Container',
          max: { cpu: '1' },
          default: { cpu: '500m' },
          defaultRequest: { cpu: '100m' },
        },
      ],
    },
  });
  const created = specOf(await api.want('POST', `${NS}/pods`, pod('a')));
  assert.deepEqual(created.containers[0]?.resources, {
    limits: { cpu: '500m' },
    requests: { cpu: '100m' },
  });
  const resources = { limits: { cpu: '2' } };
  const greedy = pod('b', { spec: { containers: [{ name: 'c', image: 'x', resources }] } });
  const refused = await api.send('POST', `${NS}/pods`, greedy);
  assert.equal(refused.code, 403);
  assert.match(refused.body.message ?? '', /maximum cpu usage per Container is 1, but limit is 2/);
});

test('a quota is never exceeded, however many create at once', async () => {
  await using api = await startHarness();
  const hard = { pods: '5', 'count/configmaps': '1' };
  await api.want('POST', `${NS}/resourcequotas`, { metadata: { name: 'q' }, spec: { hard } });
  const creations = Array.from({ length: 20 }, (_, i) =>
    api.send('POST', `${NS}/pods`, pod(`p${i}`)),
  );
  const codes = (await Promise.all(creations)).map(({ code }) => code);
  assert.equal(codes.filter((code) => code === 201).length, 5);
  assert.equal(codes.filter((code) => code === 403).length, 15);
  const refused = await api.send('POST', `${NS}/pods`, pod('more'));
  const why = 'exceeded quota: q, requested: pods=1, used: pods=5, limited: pods=5';
  assert.equal(refused.body.message, `pods "more" is forbidden: ${why}`);
  await api.want('DELETE', `${NS}/pods/p0`);
  assert.equal((await api.send('POST', `${NS}/pods`, pod('more'))).code, 201);
  await api.want('POST', `${NS}/configmaps`, { metadata: { name: 'a' } });
  assert.equal((await api.send('POST', `${NS}/configmaps`, { metadata: { name: 'b' } })).code, 403);
});

test('a quota on cpu wants every container to say what it needs', async () => {
  await using api = await startHarness();
  const hard = { 'requests.cpu': '1' };
  await api.want('POST', `${NS}/resourcequotas`, { metadata: { name: 'q' }, spec: { hard } });
  const silent = await api.send('POST', `${NS}/pods`, pod('a'));
  assert.match(silent.body.message ?? '', /failed quota: q: must specify requests.cpu for: c/);
  const asking = (name: string, cpu: string) =>
    pod(name, {
      spec: { containers: [{ name: 'c', image: 'x', resources: { requests: { cpu } } }] },
    });
  assert.equal((await api.send('POST', `${NS}/pods`, asking('b', '600m'))).code, 201);
  const second = await api.send('POST', `${NS}/pods`, asking('c', '600m'));
  assert.match(
    second.body.message ?? '',
    /requested: requests.cpu=600m, used: requests.cpu=600m, limited: requests.cpu=1/,
  );
});

test('nobody grants more than they hold', async () => {
  const rbac = createRbac();
  await using api = await startHarness({ authorizer: rbac, rbac });
  const root = '/apis/rbac.authorization.k8s.io/v1';
  const writer = { apiGroups: ['rbac.authorization.k8s.io'], resources: ['*'], verbs: ['*'] };
  const limited = { ...writer, verbs: ['create', 'get', 'update'] };
  await api.want('POST', `${root}/clusterroles`, {
    metadata: { name: 'writer' },
    rules: [limited],
  });
  await api.want('POST', `${root}/clusterrolebindings`, {
    metadata: { name: 'writer' },
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'writer' },
    subjects: [{ kind: 'User', apiGroup: 'rbac.authorization.k8s.io', name: 'bob' }],
  });
  const as = api.server.loopback({ name: 'bob', uid: '', groups: [], extra: {} });
  const secrets = { apiGroups: [''], resources: ['secrets'], verbs: ['get'] };
  const role = { metadata: { name: 'thief' }, rules: [secrets] };
  const refused = await api.send('POST', `${root}/namespaces/default/roles`, role, { as });
  assert.equal(refused.code, 403);
  assert.match(
    refused.body.message ?? '',
    /attempting to grant RBAC permissions not currently held/,
  );
  const own = { metadata: { name: 'fine' }, rules: [limited] };
  assert.equal((await api.send('POST', `${root}/namespaces/default/roles`, own, { as })).code, 201);
  await as.close();
});

test('a new node is tainted, and a node may write about itself alone', async () => {
  await using api = await startHarness();
  const as = api.server.loopback({
    name: 'system:node:n1',
    uid: '',
    groups: ['system:nodes'],
    extra: {},
  });
  const node = await api.want('POST', '/api/v1/nodes', { metadata: { name: 'n1' } }, { as });
  assert.deepEqual((node.spec as { taints: object[] }).taints, [
    { key: 'node.kubernetes.io/not-ready', effect: 'NoSchedule' },
  ]);
  const other = await api.send('POST', '/api/v1/nodes', { metadata: { name: 'n2' } }, { as });
  assert.equal(other.code, 403);
  const status = { status: { phase: 'Running' } };
  const type = 'application/merge-patch+json';
  await api.want('PATCH', '/api/v1/nodes/n1/status', status, { as, type });
  await as.close();
});
