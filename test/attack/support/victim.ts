import { randomBytes } from 'node:crypto';
import type { KubeObject } from '../../../src/api/object.ts';
import { systemClock } from '../../../src/base/clock.ts';
import { CLUSTER_OBJECTS, clusterObject } from './cluster-objects.ts';
import { CLUSTER_KINDS, kindOf, NAMESPACED_KINDS, prefixOf } from './kinds.ts';
import { minimal } from './objects.ts';
import type { World } from './world.ts';

export const VICTIM_NAMESPACES = ['acme', 'acme-web'];
/** Of the one object of each kind that the victim has in its first namespace. */
export const TARGET = 'target';

/** Everything that there is to attack, and what the attacker has of its own. */
export async function buildVictim(world: World): Promise<void> {
  for (const namespace of VICTIM_NAMESPACES) await createNamespace(world, 'alice', namespace);
  for (const namespace of ['globex', 'globex-lab']) await createNamespace(world, 'bob', namespace);
  await Promise.all(['node-1', 'node-2'].map((name) => createNode(world, name)));
  for (const row of NAMESPACED_KINDS) {
    const path = (namespace: string) => `${prefixOf(row)}/namespaces/${namespace}/${row.resource}`;
    const canary = `canary-${randomBytes(8).toString('hex')}`;
    world.canaries.push(canary);
    const { metadata } = await create(
      world,
      path('acme'),
      minimal(kindOf(row), 'acme', TARGET, canary),
    );
    world.uids[`${kindOf(row)}/${TARGET}`] = metadata.uid ?? '';
    world.canaries.push(metadata.uid ?? '');
    await create(world, path('globex'), minimal(kindOf(row), 'globex', 'marker', 'own'));
  }
  for (const row of CLUSTER_KINDS) {
    const kind = kindOf(row);
    if (!CLUSTER_OBJECTS[kind]) continue;
    const path = `${prefixOf(row)}/${row.resource}`;
    const canary = `canary-${kind}`;
    await create(world, path, clusterObject(kind, 'operators-own', canary));
    world.canaries.push(canary);
  }
  await create(world, '/apis/rbac.authorization.k8s.io/v1/clusterroles', {
    metadata: { name: 'secret-role' },
    rules: [{ apiGroups: ['example.org'], resources: ['canary-rule'], verbs: ['get'] }],
  });
  await bindPod(world, 'acme', 'placed', 'node-1', 'target');
  await bindPod(world, 'globex', 'placed', 'node-2', 'marker');
  await createRobot(world);
  await world.want('operator', {
    ...{ method: 'POST', path: '/api/v1/namespaces/kube-system/configmaps' },
    body: { metadata: { name: 'operators-own' }, data: { note: 'canary-of-the-operator' } },
  });
  world.canaries.push('canary-of-the-operator');
}

/** Events have two groups and are the same objects: the second time they are there. */
async function create(world: World, path: string, body: object): Promise<KubeObject> {
  const answer = await world.send('operator', { method: 'POST', path, body });
  if (answer.status === 201) return JSON.parse(answer.text) as KubeObject;
  if (answer.status !== 409) throw new Error(`POST ${path}: ${answer.status} ${answer.text}`);
  const { name } = (body as KubeObject).metadata;
  return world.want('operator', { path: `${path}/${name}` });
}

async function createNamespace(world: World, who: 'alice' | 'bob', name: string): Promise<void> {
  const path = '/api/v1/namespaces';
  const { metadata } = await world.want(who, {
    method: 'POST',
    path,
    body: { metadata: { name } },
  });
  if (who === 'alice') world.canaries.push(metadata.uid ?? '');
  const account = `${path}/${name}/serviceaccounts/default`;
  for (
    let tries = 0;
    (await world.send('operator', { path: account })).status !== 200;
    tries += 1
  ) {
    if (tries > 200) throw new Error(`The namespace ${name} got no service account`);
    await systemClock.sleep(20);
  }
}

async function createNode(world: World, name: string): Promise<void> {
  const body = {
    metadata: { name, labels: { secret: 'canary-node-label' } },
    // Pods are put on nodes by this file alone.
    spec: { podCIDR: '10.1.0.0/24', unschedulable: true },
    status: {
      capacity: { cpu: '64', memory: '64Gi', pods: '110' },
      allocatable: { cpu: '64', memory: '64Gi', pods: '110' },
      images: [{ names: ['canary-node-image'], sizeBytes: 1 }],
      addresses: [{ type: 'InternalIP', address: '127.0.0.1' }],
    },
  };
  await create(world, '/api/v1/nodes', body);
  if (name === 'node-1') world.canaries.push('canary-node-label', 'canary-node-image');
}

/** A pod on a node that refers to a Secret and a ConfigMap of its namespace. */
async function bindPod(
  world: World,
  namespace: string,
  name: string,
  node: string,
  reference: string,
): Promise<void> {
  const path = `/api/v1/namespaces/${namespace}/pods`;
  const container = {
    ...{ name: 'main', image: 'example.org/app:1' },
    envFrom: [{ secretRef: { name: reference } }, { configMapRef: { name: reference } }],
  };
  const spec = { containers: [container], serviceAccountName: 'default', nodeName: node };
  const { metadata } = await create(world, path, { metadata: { name }, spec });
  world.uids[`${namespace}/${name}`] = metadata.uid ?? '';
}

/** A service account of the attacker's with all rights that its tenant can give it. */
async function createRobot(world: World): Promise<void> {
  const api = '/api/v1/namespaces/globex/serviceaccounts';
  await world.want('bob', { method: 'POST', path: api, body: { metadata: { name: 'robot' } } });
  const rbac = 'rbac.authorization.k8s.io';
  await world.want('bob', {
    ...{ method: 'POST', path: `/apis/${rbac}/v1/namespaces/globex/rolebindings` },
    body: {
      metadata: { name: 'robot' },
      roleRef: { apiGroup: rbac, kind: 'ClusterRole', name: 'admin' },
      subjects: [{ kind: 'ServiceAccount', namespace: 'globex', name: 'robot' }],
    },
  });
  world.credentials.robot = { token: await world.accountToken('globex', 'robot') };
}
