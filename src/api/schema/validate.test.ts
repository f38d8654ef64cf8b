import assert from 'node:assert/strict';
import { test } from 'node:test';
import { builtinTable } from './table.ts';
import { strictFailure, strictProblems, structuralFailure, structure } from './validate.ts';

const table = builtinTable();
const POD = 'io.k8s.api.core.v1.Pod';
const podRow = table.byKind('v1', 'Pod')!;

function failureOf(spec: unknown): string | undefined {
  const found = structure(table, POD, { metadata: { name: 'x' }, spec });
  return structuralFailure(podRow, 'x', found)?.message;
}

test('structure() tells a wrong type as Go does', () => {
  const head = 'Pod in version "v1" cannot be handled as a Pod: ';
  const container = (fields: object) => ({ containers: [{ name: 'a', ...fields }] });
  const cases: [unknown, string][] = [
    [
      { hostNetwork: 'x' },
      'json: cannot unmarshal string into Go struct field PodSpec.spec.hostNetwork of type bool',
    ],
    [
      container({ image: 1 }),
      'json: cannot unmarshal number into Go struct field Container.spec.containers.image of type string',
    ],
    [
      container({ env: [{ name: 'A', value: true }] }),
      'json: cannot unmarshal bool into Go struct field EnvVar.spec.containers.env.value of type string',
    ],
    [
      { containers: {} },
      'json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container',
    ],
    [
      container({ ports: [{ containerPort: 1.5 }] }),
      'json: cannot unmarshal number 1.5 into Go struct field ContainerPort.spec.containers.ports.containerPort of type int32',
    ],
    [
      container({ resources: { limits: { cpu: 'x' } } }),
      "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
    ],
  ];
  for (const [spec, wanted] of cases) assert.equal(failureOf(spec), head + wanted);
});

test('structure() tells what is missing, and fills in what Go would', () => {
  assert.equal(
    failureOf({ containers: [{}] }),
    'Pod "x" is invalid: spec.containers[0].name: Required value',
  );
  const status = { containerStatuses: [{ name: 'a' }] };
  const { value, errors } = structure(table, POD, { spec: { containers: [null] }, status });
  assert.deepEqual(
    errors.map((error) => error.field),
    ['spec.containers[0].name'],
  );
  assert.deepEqual(value['status'], {
    containerStatuses: [{ name: 'a', ready: false, restartCount: 0, image: '', imageID: '' }],
  });
});

test('structure() drops nulls and brings values into canonical form', () => {
  const { value } = structure(table, 'io.k8s.api.core.v1.Secret', {
    metadata: { creationTimestamp: null, deletionTimestamp: '2026-11-21T04:00:00.5+01:00' },
    data: { a: 'YQ==\n', b: null },
    type: null,
  });
  assert.deepEqual(value, {
    metadata: { deletionTimestamp: '2026-11-21T03:00:00Z' },
    data: { a: 'YQ==', b: '' },
  });
  const bad = structure(table, 'io.k8s.api.core.v1.Secret', { data: { a: 'Y!==' } });
  assert.equal(bad.errors[0]?.message, 'illegal base64 data at input byte 1');
});

test('strictFailure() lists duplicate and unknown fields', () => {
  const problems = strictProblems(['spec.a'], ['spec.containers[0].foo', 'x']);
  assert.equal(
    strictFailure(podRow, problems)?.message,
    'Pod in version "v1" cannot be handled as a Pod: strict decoding error: duplicate field "spec.a", ' +
      'unknown field "spec.containers[0].foo", unknown field "x"',
  );
  assert.equal(strictFailure(podRow, []), undefined);
});

test('structure() answers a flood of faults in few words', () => {
  const containers = Array.from({ length: 5000 }, () => ({ name: 1, a: 1 }));
  const { errors, unknown } = structure(table, POD, { spec: { containers } });
  assert.equal(errors.length, 16);
  assert.equal(unknown.length, 100);
});
