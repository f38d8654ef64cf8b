import type { SchemaTable, TypeNode } from './schema.ts';

/**
 * What a table of rules by type means for the objects of one type: its own rule, and the fields
 * below which there are more. Parts of an object without any rule are never visited.
 */
export interface Plan<Rule> {
  rule: Rule | undefined;
  inner: Map<string, InnerPlan<Rule>>;
}

export interface InnerPlan<Rule> {
  plan: Plan<Rule>;
  shape: 'object' | 'list' | 'map';
  /** A struct and no pointer in Go, which therefore exists even where JSON leaves it out. */
  always: boolean;
}

/** `ruleOf` gets a short name (`core.v1.Pod`) and the full one. Undefined: nothing to do at all. */
export function planFor<Rule>(
  table: SchemaTable,
  typeName: string,
  ruleOf: (shortName: string, typeName: string) => Rule | undefined,
  known: Map<string, Plan<Rule> | undefined>,
): Plan<Rule> | undefined {
  if (known.has(typeName)) return known.get(typeName);
  // Marks a type as being visited: those that contain themselves (JSON schemas) have no rules.
  known.set(typeName, undefined);
  const type = table.type(typeName);
  if (!type) return undefined;
  const plan: Plan<Rule> = { rule: ruleOf(shortTypeName(typeName), typeName), inner: new Map() };
  for (const [field, node] of Object.entries(type.fields)) {
    const target = node.ref ?? node.items?.ref ?? node.values?.ref;
    const inner = target === undefined ? undefined : planFor(table, target, ruleOf, known);
    const always = node.ref !== undefined && node.default !== undefined;
    if (inner) plan.inner.set(field, { plan: inner, shape: shapeOf(node), always });
  }
  if (plan.rule !== undefined || plan.inner.size > 0) known.set(typeName, plan);
  return known.get(typeName);
}

/** `io.k8s.api.core.v1.Pod` → `core.v1.Pod`. */
function shortTypeName(typeName: string): string {
  return typeName.split('.').slice(-3).join('.');
}

function shapeOf(node: TypeNode): 'object' | 'list' | 'map' {
  if (node.ref) return 'object';
  return node.items ? 'list' : 'map';
}
