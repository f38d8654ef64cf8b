/**
 * Goal: bodies that Go clients write are read exactly, and hostile ones end in an error. Method:
 * bodies recorded from kubectl 1.33; an encoder that shares nothing with the decoder but the
 * numbers; seeded damage.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { seededRandom } from '../../base/random.ts';
import { applyDefaults } from './defaults.ts';
import { decodeBody } from './decode.ts';
import { encodeEnvelope } from './protobuf-encode.fake.ts';
import { decodeEnvelope } from './protobuf.ts';
import { sampler } from './sample.fake.ts';
import { apiVersionOf, builtinTable } from './table.ts';
import { structure } from './validate.ts';
import { validateCreate } from './validation/validation.ts';

const table = builtinTable();
const SEED = 331;

/** What `kubectl create …` of version 1.33 sent, and what its JSON would have been. */
const RECORDED: [command: string, base64: string, object: Record<string, unknown>][] = [
  [
    'create configmap cm1 --from-literal=a=b',
    'azhzAAoPCgJ2MRIJQ29uZmlnTWFwEh0KEwoDY20xEgAaACIAKgAyADgAQgASBgoBYRIBYhoAIgA=',
    { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'cm1' }, data: { a: 'b' } },
  ],
  [
    'create deployment web --image=nginx --replicas=0',
    'azhzAAoVCgdhcHBzL3YxEgpEZXBsb3ltZW50EqsBCh8KA3dlYhIAGgAiACoAMgA4AEIAWgoKA2FwcBIDd2ViEnoIABIMCgoKA2FwcBIDd2ViGmAKHAoAEgAaACIAKgAyADgAQgBaCgoDYXBwEgN3ZWISQBIiCgVuZ2lueBIFbmdpbngqAEIAagByAIABAIgBAJABAKIBABoAMgBCAEoAUgBYAGAAaACCAQCKAQCaAQDCAQAiAgoAKAA4ABoMCAAQABgAIAAoADgAGgAiAA==',
    {
      apiVersion: 'apps/v1',
      kind: 'Deployment',
      metadata: { name: 'web', labels: { app: 'web' } },
      spec: {
        replicas: 0,
        selector: { matchLabels: { app: 'web' } },
        strategy: {},
        template: {
          metadata: { labels: { app: 'web' } },
          spec: { containers: [{ name: 'nginx', image: 'nginx', resources: {} }] },
        },
      },
      status: {},
    },
  ],
  [
    'create service nodeport svc1 --tcp=80:8080',
    'azhzAAoNCgJ2MRIHU2VydmljZRJrCiEKBHN2YzESABoAIgAqADIAOABCAFoLCgNhcHASBHN2YzESQgobCgc4MC04MDgwEgNUQ1AYUCIHCAAQkD8aACgAEgsKA2FwcBIEc3ZjMRoAIghOb2RlUG9ydDoAQgBSAFoAYABoABoCCgAaACIA',
    {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name: 'svc1', labels: { app: 'svc1' } },
      spec: {
        ports: [{ name: '80-8080', protocol: 'TCP', port: 80, targetPort: 8080 }],
        selector: { app: 'svc1' },
        type: 'NodePort',
      },
      status: { loadBalancer: {} },
    },
  ],
  [
    'create quota q1 --hard=cpu=1,memory=1G',
    'azhzAAoTCgJ2MRINUmVzb3VyY2VRdW90YRI0ChIKAnExEgAaACIAKgAyADgAQgASHAoKCgNjcHUSAwoBMQoOCgZtZW1vcnkSBAoCMUcaABoAIgA=',
    {
      apiVersion: 'v1',
      kind: 'ResourceQuota',
      metadata: { name: 'q1' },
      spec: { hard: { cpu: '1', memory: '1G' } },
      status: {},
    },
  ],
  [
    'create ingress i1 --rule=foo.com/bar=svc1:80',
    'azhzAAofChRuZXR3b3JraW5nLms4cy5pby92MRIHSW5ncmVzcxJIChIKAmkxEgAaACIAKgAyADgAQgASLhosCgdmb28uY29tEiEKHwodCgQvYmFyEg4iDAoEc3ZjMRIECgAQUBoFRXhhY3QaAgoAGgAiAA==',
    {
      apiVersion: 'networking.k8s.io/v1',
      kind: 'Ingress',
      metadata: { name: 'i1' },
      spec: {
        rules: [
          {
            host: 'foo.com',
            http: {
              paths: [
                {
                  path: '/bar',
                  backend: { service: { name: 'svc1', port: { number: 80 } } },
                  pathType: 'Exact',
                },
              ],
            },
          },
        ],
      },
      status: { loadBalancer: {} },
    },
  ],
  [
    'create pdb p1 --selector=app=x --min-available=50%',
    'azhzAAogCglwb2xpY3kvdjESE1BvZERpc3J1cHRpb25CdWRnZXQSOQoSCgJwMRIAGgAiACoAMgA4AEIAEhcKCQgBEAAaAzUwJRIKCggKA2FwcBIBeBoKCAAYACAAKAAwABoAIgA=',
    {
      apiVersion: 'policy/v1',
      kind: 'PodDisruptionBudget',
      metadata: { name: 'p1' },
      spec: { minAvailable: '50%', selector: { matchLabels: { app: 'x' } } },
      status: { currentHealthy: 0, desiredHealthy: 0, disruptionsAllowed: 0, expectedPods: 0 },
    },
  ],
  [
    'create secret generic s1 --from-literal=p=q',
    'azhzAAoMCgJ2MRIGU2VjcmV0Eh4KEgoCczESABoAIgAqADIAOABCABIGCgFwEgFxGgAaACIA',
    { apiVersion: 'v1', kind: 'Secret', metadata: { name: 's1' }, data: { p: 'cQ==' } },
  ],
];

test('bodies of kubectl are read as their JSON would be', () => {
  for (const [command, base64, wanted] of RECORDED) {
    const bytes = Buffer.from(base64, 'base64');
    const body = decodeBody('application/vnd.kubernetes.protobuf', bytes, { table });
    assert.deepEqual(body.value, wanted, command);
    const row = table.byKind(body.apiVersion, body.kind);
    assert.ok(row);
    const { value, unknown, errors } = structure(table, row.type, body.value);
    assert.deepEqual({ unknown, errors }, { unknown: [], errors: [] }, command);
    const metadata = { ...value.metadata, namespace: 'default' };
    const object = applyDefaults(row, { ...value, metadata });
    assert.deepEqual(validateCreate(row, object), [], command);
  }
});

test('every kind survives the way through protobuf', () => {
  const samples = sampler(table, seededRandom(SEED), { protobufOnly: true });
  let kinds = 0;
  for (const name of table.typeNames()) {
    const type = table.type(name);
    const [group, version, kind] = type?.kinds?.[0] ?? [];
    if (!type?.message || group === undefined || version === undefined) continue;
    kinds += 1;
    for (let round = 0; round < 3; round += 1) {
      const object: Record<string, unknown> = {
        apiVersion: apiVersionOf(group, version),
        kind,
        ...samples.value(name),
      };
      const decoded = decodeEnvelope(table, encodeEnvelope(table, type, object));
      assert.deepEqual(decoded, object, `${name}, seed ${SEED}`);
    }
  }
  assert.ok(kinds > 100, `${kinds} kinds`);
});

test('damaged bodies end in a SyntaxError or in a value', () => {
  const random = seededRandom(SEED);
  const samples = sampler(table, random, { protobufOnly: true });
  const rows = table.rows().filter((row) => table.type(row.type)?.message);
  for (let round = 0; round < 4000; round += 1) {
    const row = rows[round % rows.length]!;
    const bytes = encodeEnvelope(table, table.type(row.type)!, samples.object(row));
    const damaged = Uint8Array.from(
      bytes.subarray(0, round % 3 === 0 ? random.next() * bytes.length : undefined),
    );
    for (let hit = 0; hit < 3; hit += 1) {
      damaged[4 + Math.floor(random.next() * (damaged.length - 4))] = Math.floor(
        random.next() * 256,
      );
    }
    try {
      structure(table, row.type, decodeEnvelope(table, damaged));
    } catch (error) {
      assert.ok(error instanceof SyntaxError, `seed ${SEED}, round ${round}: ${String(error)}`);
    }
  }
});

test('nesting and numbers of values are bounded', () => {
  const wrap = (inner: Uint8Array, field: number) => {
    const length: number[] = [];
    for (let rest = inner.length; ; rest >>>= 7) {
      length.push(rest > 127 ? (rest & 127) | 128 : rest);
      if (rest <= 127) break;
    }
    return Buffer.concat([Uint8Array.of((field << 3) | 2, ...length), inner]);
  };
  const envelope = (raw: Uint8Array) => {
    const meta = Buffer.concat([wrap(Buffer.from('v1'), 1), wrap(Buffer.from('ConfigMap'), 2)]);
    return Buffer.concat([Buffer.from('k8s\0'), wrap(meta, 1), wrap(raw, 2)]);
  };
  // metadata.managedFields (field 17, so two bytes of tag), half a million times, all empty.
  const managed = Buffer.alloc(3 * 600_000, Uint8Array.of(0x8a, 0x01, 0x00));
  assert.throws(() => decodeEnvelope(table, envelope(wrap(managed, 1))), /more than 500000 values/);
  assert.throws(
    () => decodeEnvelope(table, Buffer.from('{}')),
    /does not start with the protobuf prefix/,
  );
  const unknown = Buffer.concat([Buffer.from('k8s\0'), wrap(wrap(Buffer.from('Nope'), 2), 1)]);
  assert.throws(() => decodeEnvelope(table, unknown), /no kind "Nope" is registered/);
});
