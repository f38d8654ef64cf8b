import type { PodTemplateSpec } from '../../api/types.generated.ts';

/** Null, absent and empty mean the same in a template. */
export function normalize(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(normalize);
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value)
    .filter(([, inner]) => inner !== null && inner !== undefined)
    .map(([name, inner]) => [name, normalize(inner)] as const);
  return Object.fromEntries(entries);
}

const SAFE_ALPHABET = 'bcdfghjklmnpqrstvwxz2456789';

/**
 * The hash of a template for labels and names: FNV-1a of the template in canonical form, in letters
 * that cannot form words. Kubernetes' values differ, as they hash a dump of Go's memory; clients
 * treat them as opaque.
 */
export function templateHash(template: PodTemplateSpec | undefined, collisionCount = 0): string {
  const text = canonical(normalize(template ?? {})) + (collisionCount ? `#${collisionCount}` : '');
  let hash = 0x811c9dc5;
  for (const byte of Buffer.from(text)) hash = Math.imul(hash ^ byte, 0x01000193) >>> 0;
  return [...String(hash)]
    .map((digit) => SAFE_ALPHABET[digit.charCodeAt(0) % SAFE_ALPHABET.length])
    .join('');
}

function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join(',')}]`;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value) ?? 'null';
  const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return `{${entries.map(([name, inner]) => `${name}:${canonical(inner)}`).join(',')}}`;
}
