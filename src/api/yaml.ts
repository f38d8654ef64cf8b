import { isAlias, isMap, isScalar, isSeq, parseDocument } from 'yaml';
import type { Node } from 'yaml';
import { DUPLICATES_MAX, JSON_DEPTH_MAX } from './json.ts';
import type { ParsedJson } from './json.ts';

/** The reader takes about 1 s for 3 MiB, during which nothing else is served. */
export const YAML_BYTES_MAX = 1024 * 1024;
/** Aliases resolved in all, counted through aliases of aliases: stops the "billion laughs". */
const ALIASES_MAX = 100;

/** Reads one YAML 1.2 document as JSON data. Throws `SyntaxError` with the reason. */
export function parseYaml(text: string): ParsedJson {
  if (text.length > YAML_BYTES_MAX) {
    throw new SyntaxError(`YAML of ${text.length} bytes exceeds the limit of ${YAML_BYTES_MAX}`);
  }
  checkIndicators(text);
  const document = parseDocument(text, { uniqueKeys: false, merge: true, prettyErrors: false });
  const error = document.errors[0];
  if (error) throw new SyntaxError(error.message);
  const duplicates: string[] = [];
  walk(document.contents, [], 0, duplicates);
  try {
    return { value: document.toJS({ maxAliasCount: ALIASES_MAX }), duplicates };
  } catch (cause) {
    throw new SyntaxError(`aliases cannot be resolved: ${(cause as Error).message}`, { cause });
  }
}

/**
 * Nesting needs brackets, or dashes and question marks in a row, or indentation; the reader
 * recurses on each, so all three are bounded before it runs.
 */
function checkIndicators(text: string): void {
  let brackets = 0;
  for (let at = 0; at < text.length; at += 1) {
    const character = text[at];
    if (character === '[' || character === '{') brackets += 1;
    else if ((character === ']' || character === '}') && brackets > 0) brackets -= 1;
    if (brackets > JSON_DEPTH_MAX)
      throw new SyntaxError(`nesting exceeds ${JSON_DEPTH_MAX} levels`);
  }
  const levels = JSON_DEPTH_MAX;
  if (new RegExp(`(?:[-?:] *){${levels}}`).test(text.replace(/-{3,}/g, '-'))) {
    throw new SyntaxError(`nesting exceeds ${levels} levels`);
  }
  if (new RegExp(`^ {${levels * 8}}`, 'm').test(text)) {
    throw new SyntaxError(`indentation exceeds ${levels * 8} columns`);
  }
}

function walk(node: Node | null, path: string[], depth: number, duplicates: string[]): void {
  if (depth > JSON_DEPTH_MAX) throw new SyntaxError(`nesting exceeds ${JSON_DEPTH_MAX} levels`);
  if (isSeq(node)) {
    node.items.forEach((item, index) => {
      walk(item as Node, [...path, `[${index}]`], depth + 1, duplicates);
    });
  }
  if (!isMap(node)) return;
  const seen = new Set<string>();
  for (const { key, value } of node.items) {
    const name = isScalar(key) ? String(key.value) : isAlias(key) ? `*${key.source}` : '';
    if (name === '__proto__') throw new SyntaxError('field name "__proto__" is not allowed');
    const inner = [...path, path.length === 0 ? name : `.${name}`];
    if (seen.has(name) && duplicates.length < DUPLICATES_MAX) duplicates.push(inner.join(''));
    seen.add(name);
    walk(value as Node | null, inner, depth + 1, duplicates);
  }
}
