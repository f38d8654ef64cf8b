import assert from 'node:assert/strict';
import { test } from 'node:test';
import { defaultRbacObjects } from '../../auth/default-roles.ts';
import type { ClusterRole } from '../../api/types.generated.ts';
import {
  CLUSTER_ROLES,
  CONFIG_MAPS,
  NAMESPACES,
  SERVICE_ACCOUNTS,
} from '../../client/resources.ts';
import { runClusterRoleController } from '../clusterrole/index.ts';
import { startTestCluster } from '../common/testing.fake.ts';
import { runServiceAccountController } from './index.ts';

test('every namespace has its default account and the CA, whatever is done to them', async (t) => {
  const { api, pass } = startTestCluster(t, [
    (context) => runServiceAccountController(context, { caCert: 'PEM' }),
  ]);
  api.put(NAMESPACES, { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'a' } });
  await pass(500);
  assert.ok(api.get(SERVICE_ACCOUNTS, 'a', 'default'));
  assert.deepEqual(api.get(CONFIG_MAPS, 'a', 'kube-root-ca.crt')?.data, { 'ca.crt': 'PEM' });
  api.remove(SERVICE_ACCOUNTS, 'a', 'default');
  const published = api.get(CONFIG_MAPS, 'a', 'kube-root-ca.crt');
  assert.ok(published);
  api.put(CONFIG_MAPS, { ...published, data: { 'ca.crt': 'forged' } });
  await pass(500);
  assert.ok(api.get(SERVICE_ACCOUNTS, 'a', 'default'));
  assert.deepEqual(api.get(CONFIG_MAPS, 'a', 'kube-root-ca.crt')?.data, { 'ca.crt': 'PEM' });
  api.remove(CONFIG_MAPS, 'a', 'kube-root-ca.crt');
  await pass(500);
  assert.ok(api.get(CONFIG_MAPS, 'a', 'kube-root-ca.crt'));
  assert.equal(api.all(CONFIG_MAPS).length, 1);
});

test('a namespace that is being deleted gets nothing', async (t) => {
  const { api, pass } = startTestCluster(t, [
    (context) => runServiceAccountController(context, { caCert: 'PEM' }),
  ]);
  const metadata = { name: 'a', deletionTimestamp: '2026-01-01T00:00:00Z', finalizers: ['x'] };
  api.put(NAMESPACES, { apiVersion: 'v1', kind: 'Namespace', metadata });
  await pass(500);
  assert.equal(api.all(SERVICE_ACCOUNTS).length, 0);
});

test('aggregating roles follow what they select; the defaults do already', async (t) => {
  const { api, pass } = startTestCluster(t, [runClusterRoleController]);
  for (const object of defaultRbacObjects()) {
    if (object.kind === 'ClusterRole') api.put(CLUSTER_ROLES, object as ClusterRole);
  }
  await pass(500);
  assert.deepEqual(api.writes, []);
  const rules = [{ apiGroups: ['example.com'], resources: ['widgets'], verbs: ['get'] }];
  const labels = { 'rbac.authorization.k8s.io/aggregate-to-view': 'true' };
  api.put(CLUSTER_ROLES, {
    apiVersion: 'rbac.authorization.k8s.io/v1',
    kind: 'ClusterRole',
    metadata: { name: 'widgets-view', labels },
    rules,
  });
  await pass(1000);
  for (const name of ['view', 'edit', 'admin']) {
    const resources = api
      .get(CLUSTER_ROLES, undefined, name)
      ?.rules?.flatMap((one) => one.resources);
    assert.ok(resources?.includes('widgets'), name);
  }
  api.remove(CLUSTER_ROLES, undefined, 'widgets-view');
  await pass(1000);
  const left = api.get(CLUSTER_ROLES, undefined, 'admin')?.rules?.flatMap((one) => one.resources);
  assert.ok(!left?.includes('widgets'));
});
