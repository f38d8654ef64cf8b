import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { KubeObject } from '../object.ts';
import { productTable } from './own-kinds.ts';
import { printCells } from './printer.ts';
import { builtinTable } from './table.ts';
import { validateCreate } from './validation/validation.ts';

const table = productTable();
const row = table.byKind('hypernetes.io/v1', 'Tenant') ?? assert.fail('no row');

const tenant = (name: string, spec: object = {}): KubeObject => ({
  apiVersion: 'hypernetes.io/v1',
  kind: 'Tenant',
  metadata: { name },
  spec,
});

test('our kinds stand beside those of Kubernetes, with types for all of their parts', () => {
  const own = table.rows().filter(({ group }) => group === 'hypernetes.io');
  assert.equal(table.rows().length, builtinTable().rows().length + own.length);
  assert.deepEqual(own.map(({ resource }) => resource).sort(), ['accessexplanations', 'tenants']);
  assert.equal(table.byResource('hypernetes.io', 'v1', 'tenants'), row);
  assert.ok(table.typeOfKind('hypernetes.io/v1', 'TenantList'));
  for (const name of table.typeNames().filter((each) => each.startsWith('io.hypernetes.'))) {
    for (const node of Object.values(table.type(name)?.fields ?? {})) {
      const inner = node.ref ?? node.items?.ref;
      if (inner) assert.ok(table.type(inner), `${name} refers to ${inner}`);
    }
  }
});

test('a tenant is told what is wrong with it, field by field', () => {
  const problems = (object: KubeObject) =>
    validateCreate(row, object, table).map(({ field, message }) => `${field}: ${message}`);
  assert.deepEqual(problems(tenant('acme', { quota: { hard: { pods: '10' } } })), []);
  assert.deepEqual(problems(tenant('acme-web', { parent: 'acme' })), []);
  const wrong: [KubeObject, RegExp][] = [
    [tenant('Acme'), /metadata.name: .*lower case/],
    [tenant('a'.repeat(41)), /metadata.name: .*more than 40/],
    [tenant('kube-system'), /metadata.name: .*reserved/],
    [tenant('default'), /metadata.name: .*reserved/],
    [tenant('other', { parent: 'acme' }), /spec.parent: .*begins with "acme-"/],
    [tenant('acme', { quota: { hard: { pods: '-1' } } }), /spec.quota.hard\[pods\]: .*0/],
    [tenant('acme', { quota: { hard: { 'a b': '1' } } }), /spec.quota.hard\[a b\]/],
    [tenant('acme', { members: [{ kind: 'User', name: '', role: 'admin' }] }), /members\[0\].name/],
    [tenant('acme', { projectID: 'x'.repeat(65) }), /spec.projectID/],
  ];
  for (const [object, message] of wrong) assert.match(problems(object).join('\n'), message);
});

test('kubectl shows a tenant with its namespaces and its quota', () => {
  const shown = {
    ...tenant('acme', { quota: { hard: { pods: '10', 'requests.cpu': '4' } } }),
    status: {
      phase: 'Active',
      namespaceCount: 2,
      projectID: 'p1',
      quota: { used: { pods: '3', 'requests.cpu': '1500m' } },
    },
  };
  const cells = printCells(row, shown, 0);
  assert.deepEqual(cells.slice(0, 3), ['acme', 'Active', 2]);
  assert.deepEqual(cells.slice(4), ['<none>', 'p1', 'pods: 3/10, requests.cpu: 1500m/4']);
});
