import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { after, before, test } from 'node:test';
import { X509Certificate } from 'node:crypto';
import { createApiServer } from '../../src/apiserver/server.ts';
import type { ApiServer } from '../../src/apiserver/server.ts';
import type { UserInfo } from '../../src/api/auth.ts';
import { isStatus } from '../../src/api/status.ts';
import type { Deployment, Pod, Secret } from '../../src/api/types.generated.ts';
import { createBootstrapToken } from '../../src/auth/bootstrap-tokens.ts';
import { createCertificateRequest } from '../../src/auth/csr.ts';
import { defaultRbacObjects } from '../../src/auth/default-roles.ts';
import { createNodeAuthorizer } from '../../src/auth/node-authorizer.ts';
import { createCa, createCaSigner, createKey } from '../../src/auth/pki.ts';
import { createRbac, createUnionAuthorizer } from '../../src/auth/rbac.ts';
import { subjectOf } from '../../src/auth/x509.ts';
import { systemClock } from '../../src/base/clock.ts';
import { createLog, silentLog } from '../../src/base/log.ts';
import { systemRandom } from '../../src/base/random.ts';
import { createClient } from '../../src/client/client.ts';
import type { Client } from '../../src/client/client.ts';
import {
  CERTIFICATE_REQUESTS,
  CONFIG_MAPS,
  DAEMON_SETS,
  DEPLOYMENTS,
  ENDPOINT_SLICES,
  ENDPOINTS,
  JOBS,
  NAMESPACES,
  NODES,
  PODS,
  REPLICA_SETS,
  SECRETS,
  SERVICES,
  SERVICE_ACCOUNTS,
  STATEFUL_SETS,
} from '../../src/client/resources.ts';
import { startControllers } from '../../src/controllers/index.ts';
import { createMemoryStore } from '../../src/store/memory.ts';

/** Goal: every controller does its work over the real API server, with its default role alone. */
const ending = new AbortController();
const complaints: string[] = [];
let server: ApiServer;
let running: Promise<void>;
let admin: Client;

const user = (name: string, ...groups: string[]): UserInfo => ({
  name,
  uid: '',
  groups,
  extra: {},
});

before(async () => {
  const clock = systemClock;
  const random = systemRandom;
  const rbac = createRbac();
  const nodeAuthorizer = createNodeAuthorizer();
  const store = createMemoryStore({ clock });
  server = await createApiServer({
    ...{ store, clock, random, log: silentLog, rbac, nodeAuthorizer },
    authenticators: [],
    authorizer: createUnionAuthorizer([nodeAuthorizer, rbac]),
    bootstrapObjects: defaultRbacObjects(),
  });
  admin = createClient(server.loopback(user('admin', 'system:masters')), { userAgent: 'admin' });
  const caKey = createKey();
  const caCert = createCa(caKey, { clock, random });
  const log = createLog({
    component: 'controllers',
    level: 'warn',
    write: (line) => void complaints.push(line),
  });
  running = startControllers({
    transport: server.loopback(user('system:kube-controller-manager')),
    signer: createCaSigner({ caCert, caKey, clock, random }),
    ...{ clock, random, log, signal: ending.signal },
  });
});

after(async () => {
  ending.abort();
  await running;
  await server.close();
  const forbidden = complaints.filter((line) => /forbidden|Forbidden/.test(line));
  assert.deepEqual(forbidden, [], 'the default role suffices');
});

/** What the condition returns, once it is truthy; the watch that brings it has no other event. */
async function eventually<T>(what: string, condition: () => Promise<T>): Promise<NonNullable<T>> {
  const deadlineMs = performance.now() + 15_000;
  for (;;) {
    const value = await condition();
    if (value) return value as NonNullable<T>;
    if (performance.now() > deadlineMs) {
      assert.fail(`${what} did not happen. Logged: ${complaints.slice(-5).join('')}`);
    }
    await sleep(20);
  }
}

const gone = async (read: Promise<unknown>): Promise<boolean> =>
  read.then(
    () => false,
    (error: unknown) => {
      if (isStatus(error, 'NotFound')) return true;
      throw error;
    },
  );

const makeNamespace = async (name: string): Promise<void> => {
  const space = { apiVersion: 'v1', kind: 'Namespace', metadata: { name } };
  await admin.create(NAMESPACES, space);
  await eventually('the default account', async () =>
    admin.get(SERVICE_ACCOUNTS, { namespace: name, name: 'default' }).catch(() => undefined),
  );
};

function deployment(namespace: string, image: string): Deployment {
  const labels = { app: 'web' };
  return {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name: 'web', namespace },
    spec: {
      replicas: 3,
      selector: { matchLabels: labels },
      template: { metadata: { labels }, spec: { containers: [{ name: 'c', image }] } },
    },
  };
}

const pick = (spec: Deployment['spec']) => ({
  selector: spec?.selector ?? {},
  template: spec?.template ?? {},
});

async function makeReady(pod: Pod): Promise<void> {
  const lastTransitionTime = new Date().toISOString().replace(/\.\d+Z/, 'Z');
  const conditions = [{ type: 'Ready', status: 'True', lastTransitionTime }];
  await admin.updateStatus(PODS, { ...pod, status: { phase: 'Running', conditions } });
}

/** Plays the kubelet until the Deployment is complete. */
async function rollOut(namespace: string, image: string): Promise<void> {
  await eventually(`rollout of ${image}`, async () => {
    const { items } = await admin.list(PODS, { namespace });
    for (const pod of items) {
      if (pod.status?.phase !== 'Running' && !pod.metadata.deletionTimestamp) await makeReady(pod);
    }
    const current = await admin.get(DEPLOYMENTS, { namespace, name: 'web' });
    const images = items.map(({ spec }) => spec?.containers[0]?.image);
    return (
      items.length === 3 &&
      images.every((one) => one === image) &&
      current.status?.availableReplicas === 3 &&
      current.status.observedGeneration === current.metadata.generation
    );
  });
}

test('a Deployment rolls out, updates, and takes everything with it when it goes', async () => {
  await makeNamespace('deploy');
  await admin.create(DEPLOYMENTS, deployment('deploy', 'img:1'));
  await rollOut('deploy', 'img:1');
  const key = { namespace: 'deploy', name: 'web' };
  const patch = { spec: { template: { spec: { containers: [{ name: 'c', image: 'img:2' }] } } } };
  await admin.patch(DEPLOYMENTS, key, 'strategic-merge', patch);
  await rollOut('deploy', 'img:2');
  const { metadata, status } = await admin.get(DEPLOYMENTS, key);
  assert.equal(metadata.annotations?.['deployment.kubernetes.io/revision'], '2');
  assert.equal(status?.updatedReplicas, 3);
  const sets = await admin.list(REPLICA_SETS, { namespace: 'deploy' });
  assert.equal(sets.items.length, 2);
  await admin.delete(DEPLOYMENTS, key, { propagationPolicy: 'Background' });
  await eventually('collection', async () => {
    const left = await Promise.all([
      admin.list(PODS, { namespace: 'deploy' }),
      admin.list(REPLICA_SETS, { namespace: 'deploy' }),
    ]);
    return left.every(({ items }) => items.length === 0);
  });
});

test('a service tells the addresses of its pods, and then rests', async () => {
  await makeNamespace('served');
  const key = { namespace: 'served', name: 'web' };
  await admin.create(SERVICES, {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { ...key },
    spec: { selector: { app: 'web' }, ports: [{ port: 80, targetPort: 8080 }] },
  });
  const pod = await admin.create(PODS, {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'p', namespace: 'served', labels: { app: 'web' } },
    spec: { containers: [{ name: 'c', image: 'i' }] },
  });
  const conditions = [{ type: 'Ready', status: 'True' }];
  const status = { phase: 'Running', podIP: '10.88.0.9', conditions };
  await admin.updateStatus(PODS, { ...pod, status });
  const read = async () => {
    const { items } = await admin.list(ENDPOINT_SLICES, { namespace: 'served' });
    const endpoints = await admin.get(ENDPOINTS, key).catch(() => undefined);
    return { items, endpoints };
  };
  const isTold = ({ items, endpoints }: Awaited<ReturnType<typeof read>>) =>
    items[0]?.endpoints[0]?.conditions?.ready &&
    endpoints?.subsets?.[0]?.addresses?.[0]?.ip === '10.88.0.9';
  await eventually('endpoints', async () => isTold(await read()));
  const before = await read();
  await admin.patch(PODS, { namespace: 'served', name: 'p' }, 'merge', {
    metadata: { annotations: { a: 'b' } },
  });
  const map = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'm', namespace: 'served' } };
  await admin.create(CONFIG_MAPS, map);
  await sleep(200);
  assert.deepEqual(await read(), before);
});

test('foreground deletion ends with the owner', async () => {
  await makeNamespace('foreground');
  await admin.create(DEPLOYMENTS, deployment('foreground', 'img:1'));
  await rollOut('foreground', 'img:1');
  const key = { namespace: 'foreground', name: 'web' };
  await admin.delete(DEPLOYMENTS, key, { propagationPolicy: 'Foreground' });
  await eventually('deletion', () => gone(admin.get(DEPLOYMENTS, key)));
  const { items } = await admin.list(PODS, { namespace: 'foreground' });
  assert.equal(items.length, 0);
});

test('a namespace disappears with its content', async () => {
  await makeNamespace('doomed');
  await admin.create(DEPLOYMENTS, deployment('doomed', 'img:1'));
  const map = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'm', namespace: 'doomed' } };
  await admin.create(CONFIG_MAPS, map);
  await admin.delete(NAMESPACES, { name: 'doomed' });
  await eventually('deletion', () => gone(admin.get(NAMESPACES, { name: 'doomed' })));
  const left = await admin.list(CONFIG_MAPS, { namespace: 'doomed' });
  assert.equal(left.items.length, 0);
});

test('a Job counts its pods, lets them go, and takes them with it', async () => {
  await makeNamespace('jobs');
  const key = { namespace: 'jobs', name: 'sum' };
  await admin.create(JOBS, {
    apiVersion: 'batch/v1',
    kind: 'Job',
    metadata: { ...key },
    spec: {
      ...{ completions: 3, parallelism: 2, completionMode: 'Indexed' },
      template: { spec: { restartPolicy: 'Never', containers: [{ name: 'c', image: 'i' }] } },
    },
  });
  const job = await eventually('the completions', async () => {
    const { items } = await admin.list(PODS, { namespace: 'jobs' });
    for (const pod of items) {
      if (pod.status?.phase === 'Succeeded') continue;
      await admin.updateStatus(PODS, { ...pod, status: { phase: 'Succeeded' } });
    }
    const current = await admin.get(JOBS, key);
    const isComplete = current.status?.conditions?.some(({ type }) => type === 'Complete');
    return isComplete ? current : undefined;
  });
  assert.equal(job.status?.succeeded, 3);
  assert.equal(job.status.completedIndexes, '0-2');
  const { items } = await admin.list(PODS, { namespace: 'jobs' });
  assert.equal(items.length, 3);
  assert.deepEqual(
    items.flatMap(({ metadata }) => metadata.finalizers ?? []),
    [],
  );
  const expiring = { spec: { ttlSecondsAfterFinished: 0 } };
  await admin.patch(JOBS, key, 'merge', expiring);
  await eventually('expiry', () => gone(admin.get(JOBS, key)));
  assert.equal((await admin.list(PODS, { namespace: 'jobs' })).items.length, 0);
});

test('a StatefulSet is made in order, updated, and taken back', async () => {
  await makeNamespace('stateful');
  const key = { namespace: 'stateful', name: 'web' };
  const { spec } = deployment('stateful', 'img:1');
  await admin.create(STATEFUL_SETS, {
    apiVersion: 'apps/v1',
    kind: 'StatefulSet',
    metadata: { ...key },
    spec: { ...{ replicas: 2, serviceName: 'web' }, ...pick(spec) },
  });
  const runUntil = (image: string) =>
    eventually(`replicas of ${image}`, async () => {
      const { items } = await admin.list(PODS, { namespace: 'stateful' });
      for (const pod of items) if (pod.status?.phase !== 'Running') await makeReady(pod);
      const { status } = await admin.get(STATEFUL_SETS, key);
      const isUpdated = items.every((pod) => pod.spec?.containers[0]?.image === image);
      return isUpdated && status?.availableReplicas === 2 && status.updatedReplicas === 2;
    });
  await runUntil('img:1');
  const patch = { spec: { template: { spec: { containers: [{ name: 'c', image: 'img:2' }] } } } };
  await admin.patch(STATEFUL_SETS, key, 'strategic-merge', patch);
  await runUntil('img:2');
  const { items } = await admin.list(PODS, { namespace: 'stateful' });
  assert.deepEqual(items.map(({ metadata }) => metadata.name).sort(), ['web-0', 'web-1']);
  await admin.delete(STATEFUL_SETS, key, { propagationPolicy: 'Foreground' });
  await eventually('deletion', () => gone(admin.get(STATEFUL_SETS, key)));
  assert.equal((await admin.list(PODS, { namespace: 'stateful' })).items.length, 0);
});

test('a DaemonSet puts a pod on every node', async () => {
  await makeNamespace('daemons');
  await admin.create(NODES, { apiVersion: 'v1', kind: 'Node', metadata: { name: 'd1' } });
  const key = { namespace: 'daemons', name: 'agent' };
  const { spec } = deployment('daemons', 'img:1');
  await admin.create(DAEMON_SETS, {
    apiVersion: 'apps/v1',
    kind: 'DaemonSet',
    metadata: { ...key },
    spec: pick(spec),
  });
  await eventually('a ready daemon', async () => {
    const { items } = await admin.list(PODS, { namespace: 'daemons' });
    for (const pod of items) if (pod.status?.phase !== 'Running') await makeReady(pod);
    const { status } = await admin.get(DAEMON_SETS, key);
    return status?.desiredNumberScheduled === 1 && status.numberAvailable === 1;
  });
  await admin.delete(DAEMON_SETS, key, { propagationPolicy: 'Foreground' });
  await eventually('deletion', () => gone(admin.get(DAEMON_SETS, key)));
  await admin.delete(NODES, { name: 'd1' });
});

test('a bootstrap token that has expired goes', async () => {
  const { secret } = createBootstrapToken({
    ...{ clock: systemClock, random: systemRandom, lifetimeMs: -1000 },
  });
  const { namespace = '', name = '' } = secret.metadata;
  await admin.create(SECRETS, secret as Secret);
  await eventually('deletion', () => gone(admin.get(SECRETS, { namespace, name })));
});

test('a machine with a bootstrap token becomes a node with a range and certificates', async () => {
  const groups = ['system:bootstrappers', 'system:bootstrappers:hypernetes:nodes'];
  const transport = server.loopback(user('system:bootstrap:abcdef', ...groups));
  const joining = createClient(transport, { userAgent: 'kubelet' });
  const pem = createCertificateRequest(createKey(), subjectOf('system:node:n1', ['system:nodes']));
  const { metadata } = await joining.create(CERTIFICATE_REQUESTS, {
    apiVersion: 'certificates.k8s.io/v1',
    kind: 'CertificateSigningRequest',
    metadata: { generateName: 'csr-' },
    spec: {
      signerName: 'kubernetes.io/kube-apiserver-client-kubelet',
      request: Buffer.from(pem).toString('base64'),
      usages: ['digital signature', 'client auth'],
    },
  });
  const name = metadata.name ?? '';
  const signed = await eventually('the certificate', async () => {
    const { status } = await joining.get(CERTIFICATE_REQUESTS, { name });
    return status?.certificate;
  });
  const certificate = new X509Certificate(Buffer.from(signed, 'base64').toString());
  assert.equal(certificate.subject, 'O=system:nodes\nCN=system:node:n1');
  await assert.rejects(joining.list(PODS), (error) => isStatus(error, 'Forbidden'));

  const node = server.loopback(user('system:node:n1', 'system:nodes'));
  const kubelet = createClient(node, { userAgent: 'kubelet' });
  await kubelet.create(NODES, { apiVersion: 'v1', kind: 'Node', metadata: { name: 'n1' } });
  const range = await eventually('the range', async () => {
    const { spec } = await kubelet.get(NODES, { name: 'n1' });
    return spec?.podCIDR;
  });
  assert.match(range, /^10\.88\.\d+\.0\/24$/);
  await kubelet.list(PODS, { fieldSelector: 'spec.nodeName=n1' });
  await assert.rejects(kubelet.list(PODS), (error) => isStatus(error, 'Forbidden'));
  await admin.delete(NODES, { name: 'n1' });
});
