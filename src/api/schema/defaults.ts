import type { KubeObject } from '../object.ts';
import { DEFAULT_RULES } from './default-rules.ts';
import { DEFAULT_VALUES } from './default-values.ts';
import { planFor } from './plan.ts';
import type { Plan } from './plan.ts';
import { isPointer } from './pointers.ts';
import type { ResourceRow, SchemaTable } from './schema.ts';
import { builtinTable } from './table.ts';

type Fields = Record<string, unknown>;

/**
 * Fills in what Kubernetes' defaulting functions would. Returns a new object that shares unchanged
 * parts with the argument; applying it twice changes nothing more. The object must have the
 * structure of its type.
 */
export function applyDefaults(
  row: Pick<ResourceRow, 'type'>,
  object: KubeObject,
  table: SchemaTable = builtinTable(),
): KubeObject {
  const plan = planOf(table, row.type);
  return plan ? (applyPlan(plan, object) as KubeObject) : object;
}

/** What defaulting does to the values of one type itself. */
interface Defaults {
  values: { field: string; value: unknown; zeroIsUnset: boolean }[];
  rule: ((value: Fields) => void) | undefined;
}

const plans = new WeakMap<SchemaTable, Map<string, Plan<Defaults> | undefined>>();

function planOf(table: SchemaTable, typeName: string): Plan<Defaults> | undefined {
  let known = plans.get(table);
  if (!known) {
    known = new Map();
    plans.set(table, known);
  }
  return planFor(table, typeName, (shortName, name) => defaultsOf(table, shortName, name), known);
}

function defaultsOf(table: SchemaTable, shortName: string, typeName: string): Defaults | undefined {
  const lastName = shortName.slice(shortName.lastIndexOf('.') + 1);
  const constants = Object.entries(DEFAULT_VALUES[shortName] ?? {});
  // Structs of Go are never absent, so its JSON always has a spec and a status.
  const type = table.type(typeName);
  for (const part of ['spec', 'status']) {
    if (type?.kinds && type.fields[part]?.default !== undefined) constants.push([part, {}]);
  }
  const rule = DEFAULT_RULES[shortName];
  if (constants.length === 0 && !rule) return undefined;
  const values = constants.map(([field, value]) => {
    return { field, value, zeroIsUnset: !isPointer(lastName, field) };
  });
  return { values, rule };
}

function applyPlan(plan: Plan<Defaults>, value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value;
  const out: Fields = { ...(value as Fields) };
  // Constant defaults first, so that an added struct gets the defaults of its own type.
  for (const { field, value: constant, zeroIsUnset } of plan.rule?.values ?? []) {
    const given = out[field];
    const unset = given === undefined || given === '' || (given === 0 && zeroIsUnset);
    if (unset) out[field] = constant;
  }
  for (const [field, { plan: inner, shape, always }] of plan.inner) {
    if (out[field] !== undefined) out[field] = applyInner(inner, shape, out[field]);
    else if (always) {
      const made = applyPlan(inner, {}) as Fields;
      if (Object.keys(made).length > 0) out[field] = made;
    }
  }
  plan.rule?.rule?.(out);
  return out;
}

function applyInner(plan: Plan<Defaults>, shape: string, value: unknown): unknown {
  if (shape === 'object') return applyPlan(plan, value);
  if (shape === 'list') {
    return Array.isArray(value) ? value.map((item) => applyPlan(plan, item)) : value;
  }
  const entries = Object.entries(value as Fields);
  return Object.fromEntries(entries.map(([key, item]) => [key, applyPlan(plan, item)]));
}
