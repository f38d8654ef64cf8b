import type { KubeObject } from '../object.ts';
import { DEFAULT_RULES } from './default-rules.ts';
import { DEFAULT_VALUES } from './default-values.ts';
import { isPointer } from './pointers.ts';
import type { ResourceRow, SchemaTable, TypeNode } from './schema.ts';
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

/** What defaulting does to a type, with the fields below which there is more to do. */
interface Plan {
  typeName: string;
  values: [field: string, value: unknown, zeroIsUnset: boolean][];
  rule: ((value: Fields) => void) | undefined;
  inner: Map<string, NodePlan>;
}

interface NodePlan {
  plan: Plan;
  shape: 'object' | 'list' | 'map';
}

const plans = new WeakMap<SchemaTable, Map<string, Plan | undefined>>();

function planOf(table: SchemaTable, typeName: string): Plan | undefined {
  let known = plans.get(table);
  if (!known) {
    known = new Map();
    plans.set(table, known);
  }
  return makePlan(table, typeName, known);
}

function makePlan(
  table: SchemaTable,
  typeName: string,
  known: Map<string, Plan | undefined>,
): Plan | undefined {
  if (known.has(typeName)) return known.get(typeName);
  // Marks the type as being visited: a type within itself (JSON schemas) has no defaults.
  known.set(typeName, undefined);
  const type = table.type(typeName);
  if (!type) return undefined;
  const name = shortName(typeName);
  const values = Object.entries(DEFAULT_VALUES[name] ?? {});
  // Structs of Go are never absent, so its JSON always has a status.
  if (type.kinds && type.fields['status']?.default !== undefined) values.push(['status', {}]);
  const plan: Plan = {
    typeName,
    values: values.map(([field, value]) => [field, value, !isPointer(lastName(typeName), field)]),
    rule: DEFAULT_RULES[name],
    inner: new Map(),
  };
  for (const [field, node] of Object.entries(type.fields)) {
    const inner = nodePlan(table, node, known);
    if (inner) plan.inner.set(field, inner);
  }
  const empty = plan.values.length === 0 && !plan.rule && plan.inner.size === 0;
  known.set(typeName, empty ? undefined : plan);
  return known.get(typeName);
}

function nodePlan(
  table: SchemaTable,
  node: TypeNode,
  known: Map<string, Plan | undefined>,
): NodePlan | undefined {
  const target = node.ref ?? node.items?.ref ?? node.values?.ref;
  const plan = target === undefined ? undefined : makePlan(table, target, known);
  if (!plan) return undefined;
  return { plan, shape: node.ref ? 'object' : node.items ? 'list' : 'map' };
}

/** `io.k8s.api.core.v1.Pod` → `core.v1.Pod`. */
function shortName(typeName: string): string {
  return typeName.split('.').slice(-3).join('.');
}

function lastName(typeName: string): string {
  return typeName.slice(typeName.lastIndexOf('.') + 1);
}

function applyPlan(plan: Plan, value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value;
  const out: Fields = { ...(value as Fields) };
  // Constant defaults first, so that an added struct gets the defaults of its own type.
  for (const [field, constant, zeroIsUnset] of plan.values) {
    const given = out[field];
    const unset = given === undefined || given === '' || (given === 0 && zeroIsUnset);
    if (unset) out[field] = constant;
  }
  for (const [field, inner] of plan.inner) {
    if (out[field] !== undefined) out[field] = applyInner(inner, out[field]);
  }
  plan.rule?.(out);
  return out;
}

function applyInner({ plan, shape }: NodePlan, value: unknown): unknown {
  if (shape === 'object') return applyPlan(plan, value);
  if (shape === 'list') {
    return Array.isArray(value) ? value.map((item) => applyPlan(plan, item)) : value;
  }
  const entries = Object.entries(value as Fields);
  return Object.fromEntries(entries.map(([key, item]) => [key, applyPlan(plan, item)]));
}
