/**
 * Goal: whatever a client sends, the passes over an object either report it or yield a value that
 * the next pass can take. Method: samples of every kind, and mutations of them.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { seededRandom } from '../../base/random.ts';
import type { Random } from '../../base/random.ts';
import type { KubeObject } from '../object.ts';
import { applyDefaults } from './defaults.ts';
import { printCells } from './printer.ts';
import { sampler } from './sample.fake.ts';
import { builtinTable } from './table.ts';
import { structure } from './validate.ts';
import { validateCreate, validateUpdate } from './validation/validation.ts';

const SEED = 1_120_261_121;
const ROUNDS = 6;
const NOW = Date.parse('2026-11-21T00:00:00Z');
const table = builtinTable();

test('structure() leaves every valid value as it is', () => {
  const samples = sampler(table, seededRandom(SEED));
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const row of table.rows()) {
      const sample = samples.object(row);
      const { value, unknown, errors } = structure(table, row.type, sample);
      assert.deepEqual(
        { unknown, errors },
        { unknown: [], errors: [] },
        `${row.kind}, seed ${SEED}`,
      );
      assert.deepEqual(canonical(value), canonical(sample), `${row.kind}, seed ${SEED}`);
    }
  }
});

/** Quantities are the one format whose samples are not all canonical. */
function canonical(value: unknown): string {
  return JSON.stringify(value).replaceAll('"1500Mi"', '"Q"').replaceAll('"3e6"', '"Q"');
}

test('structure() finds every unknown field that is put anywhere', () => {
  const random = seededRandom(SEED);
  const samples = sampler(table, random);
  for (const row of table.rows()) {
    const sample = samples.object(row);
    const [spec] = ['spec', 'metadata'].filter((field) => sample[field] !== undefined);
    (sample[spec ?? 'metadata'] as Record<string, unknown>)['bogus'] = 1;
    sample['constructor'] = {};
    const { value, unknown } = structure(table, row.type, sample);
    const bogus = table.type(row.type)?.fields[spec ?? '']?.any ? [] : [`${spec}.bogus`];
    assert.deepEqual(unknown, [...bogus, 'constructor'], row.kind);
    assert.equal(Object.hasOwn(value, 'constructor'), false);
  }
});

test('applyDefaults() is idempotent and leaves its argument alone', () => {
  const samples = sampler(table, seededRandom(SEED));
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const row of table.rows()) {
      const sample = deepFreeze(structure(table, row.type, samples.object(row)).value);
      const once = deepFreeze(applyDefaults(row, sample));
      assert.deepEqual(applyDefaults(row, once), once, `${row.kind}, seed ${SEED}`);
      const { unknown, errors } = structure(table, row.type, once);
      const mistyped = errors.filter((error) => error.reason === 'FieldValueTypeInvalid');
      assert.deepEqual({ unknown, mistyped }, { unknown: [], mistyped: [] }, row.kind);
    }
  }
});

test('no pass fails on what the pass before it let through', () => {
  const random = seededRandom(SEED);
  const samples = sampler(table, random, { density: 0.4 });
  let accepted = 0;
  for (let round = 0; round < ROUNDS * 4; round += 1) {
    for (const row of table.rows()) {
      const body = mutate(samples.object(row), random) as Record<string, unknown>;
      const { value, errors } = structure(table, row.type, body);
      if (errors.length > 0) continue;
      accepted += 1;
      const object = applyDefaults(row, withMetadata(value));
      const context = `${row.kind}, seed ${SEED}: ${JSON.stringify(body).slice(0, 500)}`;
      assert.ok(Array.isArray(validateCreate(row, object)), context);
      assert.ok(Array.isArray(validateUpdate(row, object, object)), context);
      const cells = printCells(row, object, NOW);
      assert.equal(cells.length, row.columns.length, context);
      assert.ok(!cells.includes(undefined), context);
    }
  }
  assert.ok(accepted > 200, `${accepted} bodies were accepted`);
});

function withMetadata(value: KubeObject): KubeObject {
  return { ...value, metadata: { ...value.metadata, name: 'x' } };
}

/** Replaces some parts by values of another shape. */
function mutate(value: unknown, random: Random): unknown {
  const replacements = [
    null,
    '',
    0,
    -1,
    2 ** 40,
    true,
    [],
    {},
    'x'.repeat(300),
    [null],
    { a: null },
  ];
  if (random.next() < 0.004) return replacements[Math.floor(random.next() * replacements.length)];
  if (Array.isArray(value)) return value.map((item) => mutate(item, random));
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value).filter(() => random.next() > 0.01);
  return Object.fromEntries(entries.map(([key, item]) => [key, mutate(item, random)]));
}

function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null) {
    Object.values(value).forEach(deepFreeze);
    Object.freeze(value);
  }
  return value;
}
