import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createCertificateRequest } from '../../../auth/csr.ts';
import { createKey } from '../../../auth/pki.ts';
import { createRbac } from '../../../auth/rbac.ts';
import { createServiceAccountTokens } from '../../../auth/service-account-tokens.ts';
import { subjectOf } from '../../../auth/x509.ts';
import { FakeClock } from '../../../base/clock.fake.ts';
import { seededRandom } from '../../../base/random.ts';
import type { KubeObject } from '../../../api/object.ts';
import { NS, deployment, pod, startHarness } from '../../testing/harness.ts';
import type { Harness } from '../../testing/harness.ts';

const MERGE = { type: 'application/merge-patch+json' };
const DEPLOYMENTS = '/apis/apps/v1/namespaces/default/deployments';

test('scale shows and sets replicas, under the lock of the workload', async () => {
  await using api = await startHarness();
  await api.want('POST', DEPLOYMENTS, deployment('web', 2));
  const scale = await api.want('GET', `${DEPLOYMENTS}/web/scale`);
  assert.deepEqual(scale.spec, { replicas: 2 });
  assert.deepEqual(scale.status, { replicas: 0, selector: 'app=web' });
  const set = { ...scale, spec: { replicas: 5 } };
  const after = await api.want('PUT', `${DEPLOYMENTS}/web/scale`, set);
  assert.deepEqual(after.spec, { replicas: 5 });
  assert.equal((await api.send('PUT', `${DEPLOYMENTS}/web/scale`, set)).code, 409);
  await api.want('PATCH', `${DEPLOYMENTS}/web/scale`, { spec: { replicas: 3 } }, MERGE);
  const { spec, metadata } = await api.want('GET', `${DEPLOYMENTS}/web`);
  assert.equal((spec as { replicas: number }).replicas, 3);
  assert.equal(metadata.generation, 3);
  const negative = { spec: { replicas: -1 } };
  const refused = await api.send('PATCH', `${DEPLOYMENTS}/web/scale`, negative, MERGE);
  assert.equal(refused.code, 422);
});

test('a scale is printed as a table of its own, and what is not served says so', async () => {
  await using api = await startHarness();
  await api.want('POST', DEPLOYMENTS, deployment('web', 2));
  const headers = { accept: 'application/json;as=Table;v=v1;g=meta.k8s.io' };
  const table = await api.want<
    KubeObject & { columnDefinitions: { name: string }[]; rows: { cells: unknown[] }[] }
  >('GET', `${DEPLOYMENTS}/web/scale`, undefined, { headers });
  assert.deepEqual(
    table.columnDefinitions.map(({ name }) => name),
    ['Name', 'Desired', 'Available', 'Age'],
  );
  assert.deepEqual(table.rows[0]?.cells.slice(0, 3), ['web', 2, 0]);

  await api.want('POST', `${NS}/pods`, pod('a'));
  const absent = await api.send('PATCH', `${NS}/pods/a/ephemeralcontainers`, {}, MERGE);
  assert.equal(absent.code, 404);
  assert.deepEqual(absent.body.details, {}, 'kubectl tells by it that the feature is off');
  assert.match(absent.body.message ?? '', /pods\/ephemeralcontainers is not supported/);
});

test('a binding assigns a pod once, and leaves its annotations on it', async () => {
  await using api = await startHarness();
  await api.want('POST', `${NS}/pods`, pod('a'));
  const bind = (node: string) =>
    api.send('POST', `${NS}/pods/a/binding`, {
      metadata: { name: 'a', annotations: { 'timeline.hypernetes.io/scheduled': 'now' } },
      target: { kind: 'Node', name: node },
    });
  assert.equal((await bind('')).code, 422);
  const both = await Promise.all([bind('node-1'), bind('node-2')]);
  assert.deepEqual(both.map(({ code }) => code).sort(), [201, 409]);
  const refused = both.find(({ code }) => code === 409);
  assert.match(refused?.body.message ?? '', /is already assigned to node "node-1"/);
  const bound = await api.want('GET', `${NS}/pods/a`);
  assert.equal((bound.spec as { nodeName: string }).nodeName, 'node-1');
  assert.equal(bound.metadata.annotations?.['timeline.hypernetes.io/scheduled'], 'now');
  const { conditions } = bound.status as { conditions: object[] };
  assert.deepEqual(conditions, [
    { type: 'PodScheduled', status: 'True', lastTransitionTime: '2026-01-01T00:00:00Z' },
  ]);
});

/** Pods of one budget that run on a node, and an eviction of theirs. */
async function startBudget(api: Harness, ready: Record<string, boolean>) {
  for (const [name, isReady] of Object.entries(ready)) {
    await api.want('POST', `${NS}/pods`, pod(name, { metadata: { labels: { app: 'x' } } }));
    const target = { kind: 'Node', name: 'node-1' };
    await api.want('POST', `${NS}/pods/${name}/binding`, { metadata: { name }, target });
    const conditions = [{ type: 'Ready', status: isReady ? 'True' : 'False' }];
    const status = { phase: 'Running', conditions };
    await api.want('PATCH', `${NS}/pods/${name}/status`, { status }, MERGE);
  }
  const budgets = '/apis/policy/v1/namespaces/default/poddisruptionbudgets';
  const spec = { minAvailable: 1, selector: { matchLabels: { app: 'x' } } };
  await api.want('POST', budgets, { metadata: { name: 'p' }, spec });
  const evict = (name: string, version: string) =>
    api.send('POST', `${NS}/pods/${name}/eviction`, {
      apiVersion: `policy/${version}`,
      kind: 'Eviction',
      metadata: { name, namespace: 'default' },
    });
  const observe = async (disruptionsAllowed: number, currentHealthy: number) => {
    const status = {
      ...{ disruptionsAllowed, currentHealthy, desiredHealthy: 1, expectedPods: 2 },
      observedGeneration: 1,
    };
    await api.want('PATCH', `${budgets}/p/status`, { status }, MERGE);
  };
  return { evict, observe };
}

test('an eviction takes from the budget and stops when there is nothing left', async () => {
  await using api = await startHarness();
  const { evict, observe } = await startBudget(api, { a: true, b: true });
  const early = await evict('a', 'v1');
  assert.equal(early.code, 429);
  assert.equal(early.headers['retry-after'], '10');
  assert.match(early.body.details?.causes?.[0]?.message ?? '', /p is still being processed/);
  await observe(1, 2);
  const both = await Promise.all([evict('a', 'v1'), evict('b', 'v1beta1')]);
  assert.deepEqual(both.map(({ code }) => code).sort(), [201, 429]);
  const refused = both.find(({ code }) => code === 429);
  assert.equal(refused?.headers['retry-after'], undefined, 'who drains is to see it');
  const [cause] = refused?.body.details?.causes ?? [];
  assert.equal(cause?.reason, 'DisruptionBudget');
  assert.match(
    cause?.message ?? '',
    /^The disruption budget p needs 1 healthy pods and has 2 currently$/,
  );
  assert.equal((await evict('a', 'v2')).code, 400);
});

test('a pod that is not ready may go while its budget is kept without it', async () => {
  await using api = await startHarness();
  const { evict, observe } = await startBudget(api, { a: true, sick: false });
  await observe(0, 1);
  assert.equal((await evict('a', 'v1')).code, 429);
  assert.equal((await evict('sick', 'v1')).code, 201);
});

test('tokens are issued for accounts and pods that exist', async () => {
  const clock = new FakeClock();
  const lookup = (): KubeObject['metadata'] | undefined => undefined;
  const random = seededRandom(2);
  const tokens = createServiceAccountTokens({ privateKey: createKey(), lookup, clock, random });
  await using api = await startHarness({ tokens });
  await api.want('POST', `${NS}/pods`, pod('a'));
  const { metadata } = await api.want('GET', `${NS}/pods/a`);
  const path = `${NS}/serviceaccounts/default/token`;
  const boundObjectRef = { kind: 'Pod', apiVersion: 'v1', name: 'a', uid: metadata.uid };
  const issued = await api.want('POST', path, {
    spec: { audiences: ['x'], expirationSeconds: 3600, boundObjectRef },
  });
  const { token, expirationTimestamp } = issued.status as Record<string, string>;
  assert.equal(expirationTimestamp, '2026-01-01T01:00:00Z');
  const claims = JSON.parse(Buffer.from(token?.split('.')[1] ?? '', 'base64url').toString());
  assert.equal(claims['kubernetes.io'].pod.name, 'a');
  const stale = { spec: { audiences: ['x'], boundObjectRef: { ...boundObjectRef, uid: 'old' } } };
  assert.equal((await api.send('POST', path, stale)).code, 409);
  const short = { spec: { audiences: ['x'], expirationSeconds: 5 } };
  assert.equal((await api.send('POST', path, short)).code, 422);
  const nobody = `${NS}/serviceaccounts/nobody/token`;
  assert.equal((await api.send('POST', nobody, { spec: { audiences: ['x'] } })).code, 404);
  const keys = await api.want<{ keys: unknown[] }>('GET', '/openid/v1/jwks');
  assert.equal(keys.keys.length, 1);
});

test('reviews answer what the authorizer would', async () => {
  const rbac = createRbac();
  await using api = await startHarness({ authorizer: rbac, rbac });
  await api.want('POST', '/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles', {
    metadata: { name: 'reader' },
    rules: [{ apiGroups: [''], resources: ['pods'], verbs: ['get'] }],
  });
  await api.want('POST', '/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings', {
    metadata: { name: 'reader' },
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'Role', name: 'reader' },
    subjects: [{ kind: 'User', apiGroup: 'rbac.authorization.k8s.io', name: 'bob' }],
  });
  const ask = async (user: string, verb: string) => {
    const resourceAttributes = { namespace: 'default', verb, resource: 'pods' };
    const path = '/apis/authorization.k8s.io/v1/subjectaccessreviews';
    const { status } = await api.want('POST', path, { spec: { user, resourceAttributes } });
    return (status as { allowed: boolean }).allowed;
  };
  assert.equal(await ask('bob', 'get'), true);
  assert.equal(await ask('bob', 'list'), false);
  assert.equal(await ask('alice', 'get'), false);
  const bob = api.server.loopback({ name: 'bob', uid: '', groups: [], extra: {} });
  assert.equal((await api.send('GET', `${NS}/pods/a`, undefined, { as: bob })).code, 404);
  const refused = await api.send('GET', `${NS}/pods`, undefined, { as: bob });
  assert.equal(refused.code, 403);
  assert.match(
    refused.body.message ?? '',
    /^pods is forbidden: User "bob" cannot list resource "pods" in API group "" in the namesp/,
  );
  await bob.close();
});

test('a certificate request carries its maker, and approvals are never taken back', async () => {
  await using api = await startHarness();
  const path = '/apis/certificates.k8s.io/v1/certificatesigningrequests';
  const spec = {
    request: Buffer.from(createCertificateRequest(createKey(), subjectOf('c', []))).toString(
      'base64',
    ),
    signerName: 'example.com/signer',
    usages: ['client auth'],
    username: 'somebody-else',
  };
  const created = await api.send('POST', path, { metadata: { name: 'c' }, spec });
  assert.equal(created.code, 201, created.text);
  assert.equal((created.body.spec as unknown as { username: string }).username, 'admin');
  const conditions = [{ type: 'Approved', status: 'True', reason: 'Test', message: 'm' }];
  const aside = await api.send('PATCH', `${path}/c/status`, { status: { conditions } }, MERGE);
  assert.equal(aside.code, 403, 'the status is not where requests are approved');
  const approved = await api.want('PATCH', `${path}/c/approval`, { status: { conditions } }, MERGE);
  assert.equal((approved.status as { conditions: unknown[] }).conditions.length, 1);
  const revoke = { status: { conditions: null } };
  assert.equal((await api.send('PATCH', `${path}/c/approval`, revoke, MERGE)).code, 422);
});
