import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { TypeNode } from './schema.ts';
import { apiVersionOf, builtinTable, extendTable } from './table.ts';

const table = builtinTable();

test('the table has every generally available resource of Kubernetes 1.35', () => {
  const rows = table.rows();
  assert.equal(rows.length, 66);
  assert.equal(new Set(rows.map((row) => row.group)).size, 21);
  for (const row of rows) {
    assert.match(row.version, /^v\d+$/);
    assert.equal(table.byResource(row.group, row.version, row.resource), row);
    assert.equal(table.byKind(apiVersionOf(row.group, row.version), row.kind), row);
    assert.ok(row.verbs.length > 0 && row.columns.length > 0, row.resource);
    assert.ok(table.type(row.type)?.fields['metadata'], row.type);
  }
  assert.equal(
    table.byKind('autoscaling/v1', 'HorizontalPodAutoscaler')?.storageVersion,
    'autoscaling/v2',
  );
  assert.equal(table.byKind('events.k8s.io/v1', 'Event')?.storageVersion, 'v1');
});

test('every list of a resource has a type, and every kind of a subresource too', () => {
  const connected = /Options$/;
  for (const row of table.rows()) {
    const apiVersion = apiVersionOf(row.group, row.version);
    if (row.verbs.includes('list'))
      assert.ok(table.typeOfKind(apiVersion, `${row.kind}List`), row.kind);
    for (const { group, version, kind } of row.subresources) {
      if (!connected.test(kind))
        assert.ok(table.typeOfKind(apiVersionOf(group, version), kind), kind);
    }
  }
  const options = 'io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions';
  assert.equal(table.typeOfKind('apps/v1', 'DeleteOptions'), options);
});

test('every reference, merge key and list key exists', () => {
  const check = (node: TypeNode, where: string): void => {
    const kinds = [node.scalar, node.ref, node.items, node.values, node.any];
    assert.equal(kinds.filter((kind) => kind !== undefined).length, 1, where);
    if (node.ref) assert.ok(table.type(node.ref), `${where} refers to ${node.ref}`);
    if (node.items) check(node.items, `${where}[]`);
    if (node.values) check(node.values, `${where}{}`);
    const item = table.type(node.items?.ref ?? '');
    const keys = [...(node.listMapKeys ?? []), ...(node.patchMergeKey ? [node.patchMergeKey] : [])];
    for (const key of keys) {
      if (item) assert.ok(item.fields[key], `${where} has no key "${key}"`);
    }
  };
  for (const name of table.typeNames()) {
    const type = table.type(name);
    assert.ok(type);
    for (const [field, node] of Object.entries(type.fields)) check(node, `${name}.${field}`);
    for (const field of type.required) assert.ok(type.fields[field], `${name} requires "${field}"`);
  }
});

test('protobuf numbers are unique in their message, and its fields are those of JSON', () => {
  const inlined = new Set<string>();
  for (const name of table.typeNames()) {
    const type = table.type(name);
    const message = table.message(type?.message ?? '');
    if (!type || !message) continue;
    const numbers = Object.values(message).map(([number]) => number);
    assert.equal(new Set(numbers).size, numbers.length, name);
    for (const [field, [, protoType]] of Object.entries(message)) {
      if (protoType.startsWith('inline ')) inlined.add(field);
      else
        assert.ok(
          type.fields[field] || field === 'apiVersion' || field === 'kind',
          `${name}.${field}`,
        );
    }
  }
  assert.deepEqual([...inlined].sort(), [
    'ephemeralContainerCommon',
    'handler',
    'ingressRuleValue',
    'localObjectReference',
    'persistentVolumeSource',
    'rule',
    'ruleWithOperations',
    'volumeSource',
  ]);
});

test('extendTable() adds a kind by adding a row and a type', () => {
  const row = {
    ...table.rows()[0]!,
    group: 'example.com',
    kind: 'Thing',
    resource: 'things',
    type: 'com.example.Thing',
  };
  const added = extendTable(
    table,
    [row],
    [
      {
        name: 'com.example.Thing',
        fields: { spec: { any: true } },
        required: [],
        kinds: [['example.com', 'v1', 'Thing']],
      },
    ],
  );
  assert.equal(added.byResource('example.com', 'v1', 'things'), row);
  assert.equal(added.typeOfKind('example.com/v1', 'Thing'), 'com.example.Thing');
  assert.equal(added.rows().length, table.rows().length + 1);
  assert.equal(added.byKind('v1', 'Pod'), table.byKind('v1', 'Pod'));
  assert.equal(table.byKind('example.com/v1', 'Thing'), undefined);
});

test('fields that every JavaScript object has are unknown', () => {
  const fields = table.type('io.k8s.api.core.v1.Pod')?.fields ?? {};
  for (const name of ['constructor', 'toString', '__proto__', 'hasOwnProperty']) {
    assert.equal(fields[name], undefined);
  }
});
