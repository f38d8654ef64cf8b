import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ConfigMap, Pod, ResourceQuota } from '../../api/types.generated.ts';
import { CONFIG_MAPS, PODS, RESOURCE_QUOTAS } from '../../client/resources.ts';
import { startTestCluster } from '../common/testing.fake.ts';
import { runResourceQuotaController } from './index.ts';

const namespace = 'ns';

function quota(spec: ResourceQuota['spec']): ResourceQuota {
  return {
    apiVersion: 'v1',
    kind: 'ResourceQuota',
    metadata: { name: 'q', namespace },
    ...(spec ? { spec } : {}),
  };
}

function pod(name: string, cpu: string, phase = 'Running', qosClass = 'Burstable'): Pod {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace },
    spec: { containers: [{ name: 'c', resources: { requests: { cpu } } }] },
    status: { phase, qosClass },
  };
}

const configMap = (name: string): ConfigMap => ({
  apiVersion: 'v1',
  kind: 'ConfigMap',
  metadata: { name, namespace },
});

test('a quota says what its namespace uses, and follows it', async (t) => {
  const { api, pass, complaints } = startTestCluster(t, [runResourceQuotaController]);
  api.put(PODS, pod('a', '500m'));
  api.put(PODS, pod('done', '5', 'Succeeded'));
  api.put(CONFIG_MAPS, configMap('one'));
  const hard = { pods: '3', 'requests.cpu': '2', configmaps: '5', 'count/deployments.apps': '1' };
  api.put(RESOURCE_QUOTAS, quota({ hard }));
  await pass(1000);
  const status = () => api.get(RESOURCE_QUOTAS, namespace, 'q')?.status;
  const used = {
    pods: '1',
    'requests.cpu': '500m',
    configmaps: '1',
    'count/deployments.apps': '0',
  };
  assert.deepEqual(status(), { hard, used });
  api.put(PODS, pod('b', '1500m'));
  api.put(CONFIG_MAPS, configMap('two'));
  await pass(1000);
  assert.deepEqual(status()?.used, { ...used, pods: '2', 'requests.cpu': '2', configmaps: '2' });
  api.remove(PODS, namespace, 'a');
  api.put(PODS, pod('b', '1500m', 'Failed'));
  await pass(1000);
  assert.deepEqual(status()?.used, { ...used, pods: '0', 'requests.cpu': '0', configmaps: '2' });
  assert.deepEqual(complaints, []);
});

test('a quota with scopes counts the pods in them', async (t) => {
  const { api, pass } = startTestCluster(t, [runResourceQuotaController]);
  api.put(PODS, pod('a', '1', 'Running', 'Burstable'));
  api.put(PODS, pod('b', '0', 'Running', 'BestEffort'));
  api.put(RESOURCE_QUOTAS, quota({ hard: { pods: '9' }, scopes: ['BestEffort'] }));
  await pass(1000);
  assert.equal(api.get(RESOURCE_QUOTAS, namespace, 'q')?.status?.used?.pods, '1');
});
