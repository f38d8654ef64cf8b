import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { KubeObject } from '../../../api/object.ts';
import { NS, pod, startHarness } from '../../testing/harness.ts';
import type { Harness } from '../../testing/harness.ts';

const STRATEGIC = { type: 'application/strategic-merge-patch+json' };
const MERGE = { type: 'application/merge-patch+json' };
const JSON_PATCH = { type: 'application/json-patch+json' };

type Amounts = Record<string, string>;
interface Resources {
  requests?: Amounts | null;
  limits?: Amounts | null;
}

const GIVEN = {
  requests: { cpu: '100m', memory: '64Mi' },
  limits: { cpu: '500m', memory: '128Mi' },
};

function sized(name: string, resources: Resources = GIVEN, spec: object = {}): KubeObject {
  return pod(name, {
    spec: { containers: [{ name: 'app', image: 'busybox', resources }], ...spec },
  });
}

function change(resources: Resources, more: object = {}): object {
  return { spec: { containers: [{ name: 'app', resources, ...more }] } };
}

function resourcesOf(object: KubeObject): Resources {
  const { containers } = object.spec as unknown as { containers: { resources: Resources }[] };
  return containers[0]?.resources ?? {};
}

async function refusal(api: Harness, name: string, patch: object, type = STRATEGIC) {
  const answer = await api.send('PATCH', `${NS}/pods/${name}/resize`, patch, type);
  const causes = (answer.body.details?.causes ?? []).map(({ field, message }) => [field, message]);
  return { code: answer.code, message: answer.body.message ?? '', causes };
}

test('a resize changes resources alone, and counts as a new generation', async () => {
  await using api = await startHarness();
  const made = await api.want('POST', `${NS}/pods`, sized('a'));
  assert.equal(made.metadata.generation, 1);
  const patch = {
    ...change({ limits: { cpu: '800m' } }, { image: 'other' }),
    metadata: { labels: { a: 'b' } },
  };
  const grown = await api.want('PATCH', `${NS}/pods/a/resize`, patch, STRATEGIC);
  assert.deepEqual(resourcesOf(grown).limits, { cpu: '800m', memory: '128Mi' });
  assert.equal(grown.metadata.generation, 2);
  assert.equal(grown.metadata.labels?.['a'], undefined);
  const { containers } = grown.spec as unknown as { containers: { image: string }[] };
  assert.equal(containers[0]?.image, 'busybox');
  const read = await api.want('GET', `${NS}/pods/a/resize`);
  assert.deepEqual(read.spec, grown.spec);

  const operation = {
    op: 'replace',
    path: '/spec/containers/0/resources/limits/memory',
    value: '96Mi',
  };
  const shrunk = await api.want('PATCH', `${NS}/pods/a/resize`, [operation], JSON_PATCH);
  assert.equal(resourcesOf(shrunk).limits?.['memory'], '96Mi');
  const stale = { ...read, spec: shrunk.spec };
  assert.equal((await api.send('PUT', `${NS}/pods/a/resize`, stale)).code, 409);
  const put = await api.want('PUT', `${NS}/pods/a/resize`, { ...shrunk, spec: grown.spec });
  assert.equal(resourcesOf(put).limits?.['memory'], '128Mi');
  assert.equal(put.metadata.generation, 4);
  const same = await api.want('PATCH', `${NS}/pods/a/resize`, {}, MERGE);
  assert.equal(same.metadata.generation, 4);
  const rehearsal = `${NS}/pods/a/resize?dryRun=All`;
  await api.want('PATCH', rehearsal, change({ limits: { cpu: '900m' } }), STRATEGIC);
  assert.deepEqual(resourcesOf(await api.want('GET', `${NS}/pods/a`)), resourcesOf(put));
  const usual = await api.send(
    'PATCH',
    `${NS}/pods/a`,
    change({ limits: { cpu: '1' } }),
    STRATEGIC,
  );
  assert.equal(usual.code, 422, 'an ordinary update leaves resources as they are');
});

test('what a resize may not do is refused with the field that is wrong', async () => {
  await using api = await startHarness();
  await api.want('POST', `${NS}/pods`, sized('a'));
  const over = await refusal(api, 'a', change({ requests: { memory: '256Mi' } }));
  assert.equal(over.code, 422);
  assert.match(over.message, /must be less than or equal to memory limit of 128Mi/);
  const gone = await refusal(api, 'a', change({ limits: { memory: null } as never }));
  assert.deepEqual(gone.causes, [
    ['spec.containers[0].resources.limits', 'Forbidden: resource limits cannot be removed'],
  ]);
  const other = await refusal(api, 'a', change({ limits: { 'ephemeral-storage': '1Gi' } }));
  assert.deepEqual(other.causes, [
    ['spec.containers[0].resources', 'Forbidden: only cpu and memory resources are mutable'],
  ]);
  const policy = [{ resourceName: 'cpu', restartPolicy: 'RestartContainer' }];
  const changed = await refusal(api, 'a', {
    spec: { containers: [{ name: 'app', resizePolicy: policy }] },
  });
  assert.deepEqual(changed.causes[0]?.[0], 'spec.containers[0].resizePolicy');
  const guaranteed = await refusal(api, 'a', change({ requests: GIVEN.limits }));
  assert.deepEqual(guaranteed.causes, [
    ['spec', 'Invalid value: "Guaranteed": Pod QOS Class may not change as a result of resizing'],
  ]);
  const added = await refusal(api, 'a', { spec: { containers: [{ name: 'b', image: 'x' }] } });
  assert.deepEqual(added.causes[0]?.[0], 'spec.containers');
  assert.equal((await refusal(api, 'nobody', {})).code, 404);

  const ends = { name: 'first', image: 'busybox', resources: GIVEN };
  const stays = { name: 'side', image: 'busybox', restartPolicy: 'Always', resources: GIVEN };
  await api.want('POST', `${NS}/pods`, sized('b', GIVEN, { initContainers: [ends, stays] }));
  const initOf = (name: string) => ({
    spec: { initContainers: [{ name, resources: { limits: { cpu: '700m' } } }] },
  });
  assert.deepEqual((await refusal(api, 'b', initOf('first'))).causes, [
    [
      'spec.initContainers[0].resources',
      'Forbidden: resources for non-sidecar init containers are immutable',
    ],
  ]);
  await api.want('PATCH', `${NS}/pods/b/resize`, initOf('side'), STRATEGIC);
});

test('pods that have ended, are static, of Windows or sized as a whole are not resized', async () => {
  await using api = await startHarness();
  const wanted = change({ limits: { cpu: '1' } });
  await api.want('POST', `${NS}/pods`, sized('done'));
  await api.want('PATCH', `${NS}/pods/done/status`, { status: { phase: 'Succeeded' } }, MERGE);
  const done = await refusal(api, 'done', wanted);
  assert.deepEqual(done.causes, [
    ['spec', 'Forbidden: pods that have ended cannot be resized: the phase is Succeeded'],
  ]);
  const windows = sized('windows', GIVEN, { os: { name: 'windows' } });
  await api.want('POST', `${NS}/pods`, windows);
  assert.match((await refusal(api, 'windows', wanted)).message, /windows pods cannot be resized/);
  const statics = sized('static');
  statics.metadata.annotations = { 'kubernetes.io/config.mirror': 'x' };
  await api.want('POST', `${NS}/pods`, statics);
  assert.match((await refusal(api, 'static', wanted)).message, /static pods cannot be resized/);
  await api.want('POST', `${NS}/pods`, sized('old'));
  const running = {
    name: 'app',
    state: { running: {} },
    image: '',
    imageID: '',
    ready: true,
    restartCount: 0,
  };
  const status = { status: { containerStatuses: [running] } };
  await api.want('PATCH', `${NS}/pods/old/status`, status, MERGE);
  assert.match((await refusal(api, 'old', wanted)).message, /node without support for resize/);
});

test('quotas and limit ranges hold for a resize as for a creation', async () => {
  await using api = await startHarness();
  const hard = { 'requests.cpu': '300m', 'limits.memory': '400Mi' };
  await api.want('POST', `${NS}/resourcequotas`, { metadata: { name: 'q' }, spec: { hard } });
  for (const name of ['a', 'b']) await api.want('POST', `${NS}/pods`, sized(name));
  const over = await refusal(api, 'a', change({ requests: { cpu: '250m' } }));
  assert.equal(over.code, 403);
  assert.match(
    over.message,
    /exceeded quota: q, requested: requests.cpu=150m, used: requests.cpu=200m, limited: requests.cpu=300m/,
  );
  const grow = (name: string) =>
    api.send(
      'PATCH',
      `${NS}/pods/${name}/resize`,
      change({ requests: { cpu: '200m' } }),
      STRATEGIC,
    );
  const both = await Promise.all([grow('a'), grow('b')]);
  assert.deepEqual(both.map(({ code }) => code).sort(), [200, 403], 'one of them gets the rest');
  await api.want('PATCH', `${NS}/pods/a/resize`, change({ limits: { memory: '96Mi' } }), STRATEGIC);

  const limits = [{ type: 'Container', max: { memory: '112Mi' } }];
  await api.want('POST', `${NS}/limitranges`, { metadata: { name: 'l' }, spec: { limits } });
  const ranged = await refusal(api, 'a', change({ limits: { memory: '120Mi' } }));
  assert.equal(ranged.code, 403);
  assert.match(ranged.message, /maximum memory usage per Container is 112Mi, but limit is 120Mi/);
});
