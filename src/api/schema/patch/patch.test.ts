import assert from 'node:assert/strict';
import { test } from 'node:test';
import { seededRandom } from '../../../base/random.ts';
import type { KubeObject } from '../../object.ts';
import { StatusError } from '../../status.ts';
import { sampler } from '../sample.fake.ts';
import { builtinTable } from '../table.ts';
import { applyJsonPatch, JSON_PATCH_OPERATIONS_MAX } from './json-patch.ts';
import { applyMergePatch } from './merge-patch.ts';
import { applyPatch, PATCH_TYPES } from './patch.ts';
import { applyStrategicMergePatch } from './strategic.ts';

const table = builtinTable();
const DEPLOYMENT = 'io.k8s.api.apps.v1.Deployment';
const POD = 'io.k8s.api.core.v1.Pod';
const SERVICE_ACCOUNT = 'io.k8s.api.core.v1.ServiceAccount';

type Fields = Record<string, unknown>;

function strategic(typeName: string, original: Fields, patch: unknown): Fields {
  const before = structuredClone(original);
  const result = applyStrategicMergePatch(table, typeName, original, patch);
  assert.deepEqual(original, before, 'the original is left alone');
  return result;
}

test('applyJsonPatch() follows RFC 6902', () => {
  const cases: [unknown, unknown[], unknown][] = [
    [{ a: 1 }, [{ op: 'add', path: '/b', value: 2 }], { a: 1, b: 2 }],
    [{ a: [1, 3] }, [{ op: 'add', path: '/a/1', value: 2 }], { a: [1, 2, 3] }],
    [{ a: [1] }, [{ op: 'add', path: '/a/-', value: 2 }], { a: [1, 2] }],
    [{ a: 1, b: 2 }, [{ op: 'remove', path: '/a' }], { b: 2 }],
    [{ a: [1, 2] }, [{ op: 'remove', path: '/a/0' }], { a: [2] }],
    [{ a: 1 }, [{ op: 'replace', path: '/a', value: null }], { a: null }],
    [{ a: { b: 1 } }, [{ op: 'move', from: '/a/b', path: '/c' }], { a: {}, c: 1 }],
    [{ a: [1] }, [{ op: 'copy', from: '/a', path: '/b' }], { a: [1], b: [1] }],
    [{ 'a/b~c': 1 }, [{ op: 'test', path: '/a~1b~0c', value: 1 }], { 'a/b~c': 1 }],
    [
      { a: { x: 1, y: [2] } },
      [{ op: 'test', path: '/a', value: { y: [2], x: 1 } }],
      { a: { x: 1, y: [2] } },
    ],
    [{ a: 1 }, [{ op: 'replace', path: '', value: { b: 1 } }], { b: 1 }],
  ];
  for (const [document, patch, wanted] of cases) {
    const before = structuredClone(document);
    assert.deepEqual(applyJsonPatch(document, patch), wanted);
    assert.deepEqual(document, before);
  }
});

test('applyJsonPatch() refuses what does not apply', () => {
  const refused: unknown[] = [
    { op: 'test', path: '/a', value: 2 },
    { op: 'remove', path: '/b' },
    { op: 'replace', path: '/b', value: 1 },
    { op: 'add', path: '/b/c', value: 1 },
    { op: 'add', path: '/l/3', value: 1 },
    { op: 'add', path: '/l/01', value: 1 },
    { op: 'add', path: 'a', value: 1 },
    { op: 'add', path: '/a' },
    { op: 'add', path: '/__proto__', value: {} },
    { op: 'remove', path: '/constructor' },
    { op: 'move', from: '/o', path: '/o/p' },
    { op: 'shout', path: '/a' },
    null,
  ];
  for (const operation of refused) {
    const apply = () => applyJsonPatch({ a: 1, l: [1], o: {} }, [operation]);
    assert.throws(apply, { code: 422 }, JSON.stringify(operation));
  }
  assert.throws(() => applyJsonPatch({}, {}), { code: 400 });
  const many = Array(JSON_PATCH_OPERATIONS_MAX + 1).fill({ op: 'test', path: '', value: {} });
  assert.throws(() => applyJsonPatch({}, many), { code: 413 });
  const bomb = Array.from({ length: 40 }, (_, at) => ({ op: 'copy', from: '', path: `/c${at}` }));
  assert.throws(() => applyJsonPatch({ a: 'x'.repeat(1000) }, bomb), { code: 413 });
});

test('patches cannot build what no body could', () => {
  const document = { a: {}, l: Array(100_000).fill('x') };
  const deeper = Array.from({ length: 300 }, () => ({ op: 'copy', from: '/a', path: '/a/a' }));
  const row = table.byKind('v1', 'Pod')!;
  const pod = { apiVersion: 'v1', kind: 'Pod', metadata: {}, ...document } as KubeObject;
  assert.throws(() => applyPatch(table, row, pod, PATCH_TYPES.json, deeper), StatusError);
  const shifting = Array(1000).fill({ op: 'add', path: '/l/0', value: 1 });
  assert.throws(() => applyJsonPatch(document, shifting), { code: 413 });
  const long = [{ op: 'remove', path: '/a'.repeat(500_000) }];
  assert.throws(() => applyJsonPatch(document, long), { code: 422 });
});

test('applyMergePatch() follows the examples of RFC 7386', () => {
  const cases: [unknown, unknown, unknown][] = [
    [{ a: 'b' }, { a: 'c' }, { a: 'c' }],
    [{ a: 'b' }, { b: 'c' }, { a: 'b', b: 'c' }],
    [{ a: 'b', b: 'c' }, { a: null }, { b: 'c' }],
    [{ a: ['b'] }, { a: 'c' }, { a: 'c' }],
    [{ a: { b: 'c' } }, { a: { b: 'd', c: null } }, { a: { b: 'd' } }],
    [{ a: [{ b: 'c' }] }, { a: [1] }, { a: [1] }],
    [['a'], { a: 1 }, { a: 1 }],
    [{}, { a: { bb: { ccc: null } } }, { a: { bb: {} } }],
  ];
  for (const [target, patch, wanted] of cases)
    assert.deepEqual(applyMergePatch(target, patch), wanted);
});

test('strategic merge: lists with a merge key are merged in the order of the patch', () => {
  const pod = {
    spec: {
      containers: [
        {
          name: 'a',
          image: '1',
          env: [
            { name: 'X', value: '1' },
            { name: 'Y', value: '2' },
          ],
        },
        { name: 'b', image: '1' },
      ],
    },
  };
  const patch = {
    spec: {
      '$setElementOrder/containers': [{ name: 'b' }, { name: 'a' }, { name: 'c' }],
      containers: [
        { name: 'c', image: '3' },
        {
          name: 'a',
          '$setElementOrder/env': [{ name: 'Y' }],
          env: [{ name: 'X', $patch: 'delete' }],
        },
      ],
    },
  };
  assert.deepEqual(strategic(POD, pod, patch), {
    spec: {
      containers: [
        { name: 'b', image: '1' },
        { name: 'a', image: '1', env: [{ name: 'Y', value: '2' }] },
        { name: 'c', image: '3' },
      ],
    },
  });
});

test('strategic merge: elements that only the server has keep their place', () => {
  const pod = { spec: { containers: [{ name: 'a' }, { name: 'sidecar' }, { name: 'b' }] } };
  const patch = {
    spec: {
      '$setElementOrder/containers': [{ name: 'a' }, { name: 'b' }],
      containers: [{ name: 'b', image: '2' }],
    },
  };
  const { spec } = strategic(POD, pod, patch) as { spec: { containers: { name: string }[] } };
  assert.deepEqual(
    spec.containers.map(({ name }) => name),
    ['a', 'sidecar', 'b'],
  );
});

test('strategic merge: directives replace, delete and retain', () => {
  const deployment = {
    metadata: { labels: { a: '1', b: '2' } },
    spec: {
      strategy: { type: 'RollingUpdate', rollingUpdate: { maxSurge: 1 } },
      template: { spec: { volumes: [{ name: 'v', emptyDir: {} }], nodeSelector: { x: 'y' } } },
    },
  };
  const patch = {
    metadata: { labels: { $patch: 'replace', c: '3' } },
    spec: {
      strategy: { $retainKeys: ['type'], type: 'Recreate' },
      template: {
        spec: {
          nodeSelector: { $patch: 'delete' },
          volumes: [{ $retainKeys: ['name', 'hostPath'], name: 'v', hostPath: { path: '/x' } }],
        },
      },
    },
  };
  assert.deepEqual(strategic(DEPLOYMENT, deployment, patch), {
    metadata: { labels: { c: '3' } },
    spec: {
      strategy: { type: 'Recreate' },
      template: { spec: { volumes: [{ name: 'v', hostPath: { path: '/x' } }], nodeSelector: {} } },
    },
  });
  const replaced = { spec: { containers: [{ $patch: 'replace' }, { name: 'z' }] } };
  const pod = { spec: { containers: [{ name: 'a' }, { name: 'b' }] } };
  assert.deepEqual(strategic(POD, pod, replaced), { spec: { containers: [{ name: 'z' }] } });
});

test('strategic merge: lists of scalars are merged as sets or replaced', () => {
  const finalizers = { metadata: { finalizers: ['a/x', 'b/x', 'c/x'] } };
  const patch = {
    metadata: {
      '$deleteFromPrimitiveList/finalizers': ['b/x'],
      finalizers: ['d/x'],
      '$setElementOrder/finalizers': ['d/x', 'a/x'],
    },
  };
  assert.deepEqual(strategic(POD, finalizers, patch), {
    metadata: { finalizers: ['d/x', 'a/x', 'c/x'] },
  });
  const args = { spec: { containers: [{ name: 'a', args: ['1', '2'] }] } };
  assert.deepEqual(strategic(POD, args, { spec: { containers: [{ name: 'a', args: ['3'] }] } }), {
    spec: { containers: [{ name: 'a', args: ['3'] }] },
  });
});

test('strategic merge: ports merge by number, nulls remove, new parts lose directives', () => {
  const service = {
    spec: {
      ports: [
        { port: 80, name: 'a' },
        { port: 81, name: 'b' },
      ],
      type: 'ClusterIP',
    },
  };
  const patch = {
    spec: {
      type: null,
      ports: [{ port: 81, nodePort: 3 }],
      selector: { $patch: 'replace', a: null, b: '1' },
    },
  };
  assert.deepEqual(strategic('io.k8s.api.core.v1.Service', service, patch), {
    spec: {
      ports: [
        { port: 80, name: 'a' },
        { port: 81, name: 'b', nodePort: 3 },
      ],
      selector: { b: '1' },
    },
  });
  const account = strategic(
    SERVICE_ACCOUNT,
    { secrets: [{ name: 'a' }] },
    { secrets: [{ name: 'b' }] },
  );
  assert.deepEqual(account, { secrets: [{ name: 'b' }, { name: 'a' }] });
});

test('strategic merge answers 400 to a malformed patch', () => {
  const pod = { metadata: { finalizers: ['a/b'] }, spec: { containers: [{ name: 'a' }] } };
  const bad: unknown[] = [
    [],
    null,
    { spec: { $patch: 'merge-all' } },
    { spec: { containers: [{ image: 'x' }] } },
    { spec: { containers: [1] } },
    { spec: { $retainKeys: 'x' } },
    { spec: { $retainKeys: ['a'], b: 1 } },
    { spec: { '$setElementOrder/containers': 'x' } },
    { spec: { '$setElementOrder/containers': [], containers: [{ name: 'a' }] } },
    { metadata: { '$deleteFromPrimitiveList/finalizers': 'x' } },
  ];
  for (const patch of bad) {
    assert.throws(
      () => applyStrategicMergePatch(table, POD, pod, patch),
      { code: 400 },
      JSON.stringify(patch),
    );
  }
});

test('strategic merge: laws that hold for every kind', () => {
  const seed = 42;
  // One element a list: two with the same key would be one after merging.
  const samples = sampler(table, seededRandom(seed), { listLength: 1 });
  for (const row of table.rows()) {
    const object = samples.object(row);
    const other = samples.object(row);
    const context = `${row.kind}, seed ${seed}`;
    assert.deepEqual(strategic(row.type, object, {}), object, `empty patch: ${context}`);
    const once = strategic(row.type, object, other);
    assert.deepEqual(strategic(row.type, once, other), once, `idempotence: ${context}`);
    assert.deepEqual(
      strategic(row.type, {}, other),
      strategic(row.type, {}, strategic(row.type, {}, other)),
      context,
    );
  }
});

test('a list of 20,000 elements is merged in time', () => {
  const env = (value: string) =>
    Array.from({ length: 20_000 }, (_, at) => ({ name: `N${at}`, value }));
  const pod = (value: string) => ({ spec: { containers: [{ name: 'a', env: env(value) }] } });
  assert.deepEqual(applyStrategicMergePatch(table, POD, pod('1'), pod('2')), pod('2'));
});

test('applyPatch() chooses by media type', () => {
  const row = table.byKind('v1', 'Pod')!;
  const pod: KubeObject = {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'x', labels: { a: '1' } },
  };
  const patch = { metadata: { labels: { a: null } } };
  const wanted = { ...pod, metadata: { name: 'x', labels: {} } };
  assert.deepEqual(applyPatch(table, row, pod, PATCH_TYPES.merge, patch), wanted);
  assert.deepEqual(applyPatch(table, row, pod, PATCH_TYPES.strategic, patch), wanted);
  const operations = [{ op: 'remove', path: '/metadata/labels/a' }];
  assert.deepEqual(applyPatch(table, row, pod, PATCH_TYPES.json, operations), wanted);
  assert.throws(() => applyPatch(table, row, pod, 'application/apply-patch+yaml', patch), {
    code: 415,
  });
  const scalar = [{ op: 'replace', path: '', value: 1 }];
  assert.throws(() => applyPatch(table, row, pod, PATCH_TYPES.json, scalar), { code: 400 });
});
