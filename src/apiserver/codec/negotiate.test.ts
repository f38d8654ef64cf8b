import assert from 'node:assert/strict';
import { test } from 'node:test';
import { negotiate } from './negotiate.ts';

const TABLE =
  'application/json;as=Table;v=v1;g=meta.k8s.io,' +
  'application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json';

test('negotiate() chooses what clients of Kubernetes ask for', () => {
  const cases: [string | undefined, string][] = [
    [undefined, 'object v1 json'],
    ['*/*', 'object v1 json'],
    ['application/json', 'object v1 json'],
    ['application/yaml', 'object v1 yaml'],
    [TABLE, 'table v1 json'],
    ['application/vnd.kubernetes.protobuf,application/json', 'object v1 json'],
    ['application/json;stream=watch', 'object v1 json'],
    ['application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1', 'metadata v1 json'],
    ['application/yaml;q=0.2, application/json;q=0.9', 'object v1 json'],
    ['application/json;as=Table;v=v9;g=meta.k8s.io,application/json', 'object v1 json'],
  ];
  for (const [accept, expected] of cases) {
    const found = negotiate(accept);
    assert.equal(
      `${found.shape} ${found.metaVersion} ${found.encoding}`,
      expected,
      accept ?? 'none',
    );
  }
});

test('negotiate() refuses what the server cannot write', () => {
  for (const accept of [
    'text/html',
    'application/vnd.kubernetes.protobuf',
    'application/json;q=0',
  ]) {
    assert.throws(() => negotiate(accept), { reason: 'NotAcceptable', code: 406 });
  }
});
