import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { KubeObject } from '../../api/object.ts';
import { NS, configMap, deployment, pod, startHarness } from '../testing/harness.ts';

const DEPLOYMENTS = '/apis/apps/v1/namespaces/default/deployments';
const MERGE = { type: 'application/merge-patch+json' };

test("create sets what is the server's and ignores what the client may not set", async () => {
  await using api = await startHarness();
  const draft = configMap('a', {
    metadata: { uid: 'mine', creationTimestamp: '2001-01-01T00:00:00Z', managedFields: [{}] },
    data: { k: 'v' },
  });
  const created = await api.want('POST', `${NS}/configmaps`, draft);
  const { metadata } = created;
  assert.notEqual(metadata.uid, 'mine');
  assert.equal(metadata.creationTimestamp, '2026-01-01T00:00:00Z');
  assert.equal(metadata.namespace, 'default');
  assert.equal(metadata.managedFields, undefined);
  assert.equal(metadata.resourceVersion, String(api.store.revision));
  assert.deepEqual(await api.want('GET', `${NS}/configmaps/a`), created);
});

test('create refuses taken names, wrong namespaces, wrong kinds and resourceVersions', async () => {
  await using api = await startHarness();
  await api.want('POST', `${NS}/configmaps`, configMap('a'));
  const taken = await api.send('POST', `${NS}/configmaps`, configMap('a'));
  assert.equal(taken.code, 409);
  assert.equal(taken.body.reason, 'AlreadyExists');
  assert.equal(taken.body.message, 'configmaps "a" already exists');
  const elsewhere = configMap('b', { metadata: { namespace: 'kube-system' } });
  assert.equal((await api.send('POST', `${NS}/configmaps`, elsewhere)).code, 400);
  assert.equal((await api.send('POST', `${NS}/configmaps`, pod('b'))).code, 400);
  const versioned = configMap('b', { metadata: { resourceVersion: '3' } });
  assert.equal((await api.send('POST', `${NS}/configmaps`, versioned)).code, 400);
  const nameless = await api.send('POST', `${NS}/configmaps`, configMap(''));
  assert.equal(nameless.code, 422);
  const missing = await api.send('POST', '/api/v1/namespaces/nowhere/configmaps', configMap('a'));
  assert.equal(missing.body.message, 'namespaces "nowhere" not found');
});

test('create makes names from generateName and tries again when one is taken', async () => {
  await using api = await startHarness();
  const draft = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { generateName: 'x-' } };
  const names = new Set<string>();
  for (let i = 0; i < 20; i += 1) {
    const { metadata } = await api.want('POST', `${NS}/configmaps`, draft);
    assert.match(metadata.name ?? '', /^x-[a-z0-9]{5}$/);
    names.add(metadata.name ?? '');
  }
  assert.equal(names.size, 20);
});

test("update keeps the server's fields, and writes nothing twice", async () => {
  await using api = await startHarness();
  const created = await api.want('POST', `${NS}/configmaps`, configMap('a', { data: { k: '1' } }));
  const changed = { ...created, data: { k: '2' } };
  const updated = await api.want('PUT', `${NS}/configmaps/a`, changed);
  assert.equal(updated.metadata.uid, created.metadata.uid);
  assert.notEqual(updated.metadata.resourceVersion, created.metadata.resourceVersion);
  const stale = await api.send('PUT', `${NS}/configmaps/a`, changed);
  assert.equal(stale.code, 409);
  assert.match(stale.body.message ?? '', /the object has been modified; please apply your changes/);
  const same = await api.want('PUT', `${NS}/configmaps/a`, updated);
  assert.equal(same.metadata.resourceVersion, updated.metadata.resourceVersion);
  const blind = configMap('a', { data: { k: '3' } });
  assert.equal((await api.send('PUT', `${NS}/configmaps/a`, blind)).code, 200);
  const other = configMap('a', { metadata: { uid: 'another' } });
  assert.equal((await api.send('PUT', `${NS}/configmaps/a`, other)).code, 409);
  assert.equal((await api.send('PUT', `${NS}/configmaps/b`, configMap('a'))).code, 400);
  assert.equal((await api.send('PUT', `${NS}/configmaps/b`, configMap('b'))).code, 404);
});

test('the status is written through its subresource alone, the spec never', async () => {
  await using api = await startHarness();
  const draft = { ...deployment('a'), status: { replicas: 9 } };
  const created = await api.want('POST', DEPLOYMENTS, draft);
  assert.deepEqual(created.status, {});
  assert.equal(created.metadata.generation, 1);
  const both = { spec: { replicas: 5 }, status: { replicas: 5 } };
  const viaStatus = await api.want('PATCH', `${DEPLOYMENTS}/a/status`, both, MERGE);
  assert.equal((viaStatus.spec as { replicas: number }).replicas, 1);
  assert.equal((viaStatus.status as { replicas: number }).replicas, 5);
  assert.equal(viaStatus.metadata.generation, 1);
  const viaSpec = await api.want('PATCH', `${DEPLOYMENTS}/a`, { ...both, status: {} }, MERGE);
  assert.equal((viaSpec.spec as { replicas: number }).replicas, 5);
  assert.equal((viaSpec.status as { replicas: number }).replicas, 5);
  assert.equal(viaSpec.metadata.generation, 2);
  const labelled = { metadata: { labels: { a: 'b' } } };
  const relabelled = await api.want('PATCH', `${DEPLOYMENTS}/a`, labelled, MERGE);
  assert.equal(relabelled.metadata.generation, 2);
});

test('each patch type does what it says, others are refused with 415', async () => {
  await using api = await startHarness();
  await api.want('POST', DEPLOYMENTS, deployment('a'));
  const strategic = await api.want(
    'PATCH',
    `${DEPLOYMENTS}/a`,
    { spec: { template: { spec: { containers: [{ name: 'd', image: 'x' }] } } } },
    { type: 'application/strategic-merge-patch+json' },
  );
  const names = (object: KubeObject) =>
    (
      object.spec as { template: { spec: { containers: { name: string }[] } } }
    ).template.spec.containers
      .map(({ name }) => name)
      .sort();
  assert.deepEqual(names(strategic), ['c', 'd']);
  const json = await api.want(
    'PATCH',
    `${DEPLOYMENTS}/a`,
    [{ op: 'replace', path: '/spec/replicas', value: 7 }],
    { type: 'application/json-patch+json' },
  );
  assert.equal((json.spec as { replicas: number }).replicas, 7);
  for (const type of ['application/apply-patch+yaml', 'application/cbor', 'application/json', '']) {
    const refused = await api.send('PATCH', `${DEPLOYMENTS}/a`, {}, { type });
    assert.equal(refused.code, 415, type);
    assert.equal(refused.body.reason, 'UnsupportedMediaType');
  }
  const locked = { metadata: { resourceVersion: '1' }, spec: { replicas: 1 } };
  assert.equal((await api.send('PATCH', `${DEPLOYMENTS}/a`, locked, MERGE)).code, 409);
  const renamed = { metadata: { name: 'b' } };
  assert.equal((await api.send('PATCH', `${DEPLOYMENTS}/a`, renamed, MERGE)).code, 400);
  assert.equal((await api.send('PATCH', `${DEPLOYMENTS}/z`, {}, MERGE)).code, 404);
});

test('concurrent patches all take effect', async () => {
  await using api = await startHarness();
  await api.want('POST', `${NS}/configmaps`, configMap('a'));
  const patches = Array.from({ length: 50 }, (_, i) =>
    api.want('PATCH', `${NS}/configmaps/a`, { data: { [`k${i}`]: 'v' } }, MERGE),
  );
  await Promise.all(patches);
  const { data } = await api.want('GET', `${NS}/configmaps/a`);
  assert.equal(Object.keys(data as object).length, 50);
});

test('dryRun=All computes everything and stores nothing', async () => {
  await using api = await startHarness();
  await api.want('POST', `${NS}/configmaps`, configMap('a', { data: { k: '1' } }));
  const { revision } = api.store;
  const created = await api.want('POST', `${NS}/pods?dryRun=All`, pod('dry'));
  assert.equal((created.status as { phase: string }).phase, 'Pending');
  const merge = { data: { k: '2' } };
  const patched = await api.want('PATCH', `${NS}/configmaps/a?dryRun=All`, merge, MERGE);
  assert.deepEqual(patched.data, { k: '2' });
  await api.want('DELETE', `${NS}/configmaps/a`, { dryRun: ['All'] });
  const taken = await api.send('POST', `${NS}/configmaps?dryRun=All`, configMap('a'));
  assert.equal(taken.code, 409);
  assert.equal((await api.send('POST', `${NS}/pods?dryRun=Some`, pod('b'))).code, 400);
  const service = {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: 's' },
    spec: { ports: [{ port: 1 }] },
  };
  await api.want('POST', `${NS}/services?dryRun=All`, service);
  assert.equal(api.store.revision, revision);
});

test('fieldValidation refuses, warns about or ignores unknown and duplicate fields', async () => {
  await using api = await startHarness();
  const body = '{"metadata":{"name":"a"},"data":{"x":"1"},"data":{"x":"2"},"dta":{}}';
  const strict = await api.send('POST', `${NS}/configmaps?fieldValidation=Strict`, body);
  assert.equal(strict.code, 400);
  assert.match(strict.body.message ?? '', /strict decoding error: .*unknown field "dta"/);
  assert.match(strict.body.message ?? '', /duplicate field "data"/);
  const warned = await api.send('POST', `${NS}/configmaps?fieldValidation=Warn`, body);
  assert.equal(warned.code, 201);
  assert.match(warned.headers.warning ?? '', /299 - "unknown field \\"dta\\""/);
  const ignored = body.replace('"a"', '"b"');
  const silent = await api.send('POST', `${NS}/configmaps?fieldValidation=Ignore`, ignored);
  assert.equal(silent.headers.warning, undefined);
  assert.equal((await api.send('POST', `${NS}/configmaps?fieldValidation=x`, body)).code, 400);
});

test('YAML bodies and YAML answers', async () => {
  await using api = await startHarness();
  const yaml = 'metadata: {name: a}\ndata: {k: "yes"}\n';
  const created = await api.send('POST', `${NS}/configmaps`, yaml, { type: 'application/yaml' });
  assert.equal(created.code, 201);
  const read = await api.send('GET', `${NS}/configmaps/a`, undefined, {
    headers: { accept: 'application/yaml' },
  });
  assert.equal(read.headers['content-type'], 'application/yaml');
  assert.match(read.text, /^ {2}k: "?yes"?$/m);
});

test('paths, methods and scopes that are not served are told apart', async () => {
  await using api = await startHarness();
  const codes: [string, string, number][] = [
    ['GET', '/api/v1/nothings', 404],
    ['GET', '/apis/nothing/v1/pods', 404],
    ['GET', `${NS}/pods/a`, 404],
    ['GET', `${NS}/pods/a/nothing`, 404],
    ['GET', `${NS}/nodes`, 404],
    ['POST', '/api/v1/pods', 405],
    ['DELETE', '/api/v1/namespaces', 405],
    ['PUT', `${NS}/pods/a/exec`, 405],
    ['GET', '/apis/authorization.k8s.io/v1/subjectaccessreviews', 405],
    ['POST', '/version', 405],
    ['GET', '/nothing', 404],
  ];
  for (const [method, path, code] of codes) {
    const answer = await api.send(method, path, method === 'POST' ? {} : undefined);
    assert.equal(answer.code, code, `${method} ${path}: ${answer.text}`);
  }
});

test('who uses a deprecated kind is warned', async () => {
  await using api = await startHarness();
  const list = await api.send('GET', `${NS}/endpoints`);
  assert.equal(
    list.headers['warning'],
    '299 - "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"',
  );
  assert.equal((await api.send('GET', `${NS}/services`)).headers['warning'], undefined);
});

test('tables and metadata are shown to those who ask for them', async () => {
  await using api = await startHarness();
  await api.want('POST', `${NS}/pods`, pod('a'));
  const as = (kind: string) => ({
    headers: { accept: `application/json;as=${kind};v=v1;g=meta.k8s.io,application/json` },
  });
  const table = await api.want<{
    kind: string;
    rows: { cells: unknown[]; object: KubeObject }[];
    columnDefinitions: { name: string }[];
  }>('GET', `${NS}/pods`, undefined, as('Table'));
  assert.equal(table.kind, 'Table');
  assert.equal(table.columnDefinitions[0]?.name, 'Name');
  assert.equal(table.rows[0]?.cells[0], 'a');
  assert.equal(table.rows[0]?.object.kind, 'PartialObjectMetadata');
  const partial = await api.want('GET', `${NS}/pods/a`, undefined, as('PartialObjectMetadata'));
  assert.equal(partial.kind, 'PartialObjectMetadata');
  assert.equal(partial.spec, undefined);
  const list = await api.want('GET', `${NS}/pods`, undefined, as('PartialObjectMetadataList'));
  assert.equal(list.kind, 'PartialObjectMetadataList');
  const html = await api.send('GET', `${NS}/pods`, undefined, { headers: { accept: 'text/html' } });
  assert.equal(html.code, 406);
});

test('events of both groups are the same objects', async () => {
  await using api = await startHarness();
  const event = {
    apiVersion: 'events.k8s.io/v1',
    kind: 'Event',
    metadata: { name: 'e', namespace: 'default' },
    eventTime: '2026-01-01T00:00:00.000000Z',
    reportingController: 'test',
    reportingInstance: 'i',
    action: 'Do',
    reason: 'Done',
    type: 'Normal',
    note: 'hello',
    regarding: { kind: 'Pod', name: 'p', namespace: 'default' },
  };
  const path = '/apis/events.k8s.io/v1/namespaces/default/events';
  await api.want('POST', path, event);
  const core = await api.want('GET', `${NS}/events/e`);
  assert.equal(core.message, 'hello');
  assert.equal(core.apiVersion, 'v1');
  const found = await api.want<{ items: KubeObject[] }>(
    'GET',
    `${NS}/events?fieldSelector=involvedObject.name=p`,
  );
  assert.equal(found.items.length, 1);
  const listed = await api.want<{ items: KubeObject[] }>('GET', path);
  assert.equal(listed.items[0]?.note, 'hello');
});

test('what a cluster needs comes back when it is deleted', async () => {
  await using api = await startHarness();
  await api.want('DELETE', `${NS}/services/kubernetes`);
  assert.equal((await api.send('GET', `${NS}/services/kubernetes`)).code, 404);
  await api.clock.advance(11_000);
  const { spec } = await api.want('GET', `${NS}/services/kubernetes`);
  assert.equal((spec as { clusterIP: string }).clusterIP, '10.96.0.1');
});
