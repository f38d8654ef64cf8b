import type { TypeNode } from '../../src/api/schema/schema.ts';
import type { Facts } from './facts.ts';

const HEADER = `// Made by tools/schema/generate.ts from the facts of Kubernetes; do not edit.

/** A decimal number with a unit suffix, \`250m\` or \`1Gi\`; see quantity.ts. */
export type Quantity = string;
export type IntOrString = number | string;
`;

/** Groups whose clashing names are kept bare; others get group and version in front. */
const PREFERRED = [
  'meta/v1',
  'core/v1',
  'apps/v1',
  'batch/v1',
  'autoscaling/v2',
  'rbac/v1',
  'authentication/v1',
];
const STRING_TYPES: Record<string, string> = {
  quantity: 'Quantity',
  'int-or-string': 'IntOrString',
};

/** An interface for every type, sorted by name. Required members are those always present. */
export function typescriptOf(facts: Facts): string {
  const names = interfaceNames(Object.keys(facts.types));
  const out = [HEADER];
  for (const [typeName, name] of [...names].sort((a, b) => (a[1] < b[1] ? -1 : 1))) {
    const type = facts.types[typeName];
    if (!type) continue;
    out.push(interfaceOf(name, type, facts, names));
  }
  return out.join('\n');
}

function interfaceOf(
  name: string,
  type: Facts['types'][string],
  facts: Facts,
  names: Map<string, string>,
): string {
  const kind = type.kinds?.length === 1 ? type.kinds[0] : undefined;
  const lines = Object.entries(type.fields).map(([field, index]) => {
    if (kind && field === 'apiVersion') return '  apiVersion: string;';
    if (kind && field === 'kind') return '  kind: string;';
    const node = facts.nodes[index] as TypeNode;
    const always = (kind && field === 'metadata') || type.required?.includes(field);
    const key = /^[A-Za-z]\w*$/.test(field) ? field : `'${field}'`;
    return `  ${key}${always ? '' : '?'}: ${nodeType(node, names)};`;
  });
  // The index signature lets a typed object stand where any object is asked for.
  if (kind) lines.push('  [field: string]: unknown;');
  return `export interface ${name} {\n${lines.join('\n')}\n}\n`;
}

function nodeType(node: TypeNode, names: Map<string, string>): string {
  if (node.any) return 'unknown';
  if (node.items) {
    const item = nodeType(node.items, names);
    return item.includes('<') ? `(${item})[]` : `${item}[]`;
  }
  if (node.values) return `Record<string, ${nodeType(node.values, names)}>`;
  if (node.ref) return names.get(node.ref) ?? 'unknown';
  if (node.scalar === 'integer' || node.scalar === 'number') return 'number';
  if (node.scalar === 'boolean') return 'boolean';
  return STRING_TYPES[node.format ?? ''] ?? 'string';
}

function interfaceNames(typeNames: string[]): Map<string, string> {
  const byBase = new Map<string, string[]>();
  for (const typeName of typeNames) {
    const base = typeName.slice(typeName.lastIndexOf('.') + 1);
    byBase.set(base, [...(byBase.get(base) ?? []), typeName]);
  }
  const names = new Map<string, string>();
  for (const [base, candidates] of byBase) {
    const preferred =
      candidates.length === 1
        ? candidates[0]
        : PREFERRED.map((group) => candidates.find((name) => groupOf(name) === group)).find(
            Boolean,
          );
    for (const typeName of candidates) {
      names.set(typeName, typeName === preferred ? base : prefixOf(typeName) + base);
    }
  }
  return names;
}

/** `io.k8s.api.core.v1.Pod` → `core/v1`. */
function groupOf(typeName: string): string {
  const parts = typeName.split('.');
  return `${parts.at(-3)}/${parts.at(-2)}`;
}

function prefixOf(typeName: string): string {
  const [group = '', version = ''] = groupOf(typeName).split('/');
  return capital(group) + (version === 'v1' ? '' : capital(version));
}

function capital(word: string): string {
  return word.charAt(0).toUpperCase() + word.slice(1);
}
