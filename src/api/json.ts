/**
 * A JSON reader for hostile bodies: bounded in depth, and it tells duplicate keys, which
 * `JSON.parse` swallows. The native parser still does the work; keys are only counted beside it,
 * and looked at one by one in the rare body whose count does not fit.
 */

/**
 * Deepest nesting accepted. Built-in kinds need about 25 levels, schemas of custom resources
 * under 100; the walkers behind the reader recurse, and a body of brackets must not reach the end
 * of the stack.
 */
export const JSON_DEPTH_MAX = 200;
/** Duplicates reported of one body; the rest would only lengthen the answer. */
export const DUPLICATES_MAX = 100;

export interface ParsedJson {
  value: unknown;
  /** Paths of keys that occur twice, `spec.containers[0].name`; the last occurrence counts. */
  duplicates: string[];
}

/** Reads one JSON text. Throws `SyntaxError` with the reason for anything else. */
export function parseJson(text: string): ParsedJson {
  const memberCount = scan(text);
  const value: unknown = JSON.parse(text);
  const keyCount = countKeys(value);
  return { value, duplicates: keyCount === memberCount ? [] : findDuplicates(text) };
}

const QUOTE = 34;
const COLON = 58;
const BACKSLASH = 92;

/** Counts the members of all objects, and checks the depth before anything recursive runs. */
function scan(text: string): number {
  let members = 0;
  let depth = 0;
  for (let at = 0; at < text.length; at += 1) {
    const code = text.charCodeAt(at);
    if (code === QUOTE) at = stringEnd(text, at);
    else if (code === COLON) members += 1;
    // { and [ differ from } and ] by 2, and from each other by 32.
    else if ((code | 32) === 123) depth = deeper(depth);
    else if ((code | 32) === 125) depth -= 1;
  }
  return members;
}

function deeper(depth: number): number {
  if (depth >= JSON_DEPTH_MAX) throw new SyntaxError(`nesting exceeds ${JSON_DEPTH_MAX} levels`);
  return depth + 1;
}

/** Index of the quote that closes the string opened at `start`. */
function stringEnd(text: string, start: number): number {
  let end = text.indexOf('"', start + 1);
  while (end > 0 && isEscaped(text, end, start)) end = text.indexOf('"', end + 1);
  return end < 0 ? text.length : end;
}

function isEscaped(text: string, quote: number, start: number): boolean {
  let backslashes = 0;
  while (
    quote - 1 - backslashes > start &&
    text.charCodeAt(quote - 1 - backslashes) === BACKSLASH
  ) {
    backslashes += 1;
  }
  return backslashes % 2 === 1;
}

/** Refuses `__proto__`: as the key of a copied object it would replace the copy's prototype. */
function countKeys(value: unknown): number {
  if (typeof value !== 'object' || value === null) return 0;
  let count = 0;
  if (Array.isArray(value)) {
    for (const item of value) count += countKeys(item);
    return count;
  }
  const record = value as Record<string, unknown>;
  for (const key of Object.keys(record)) {
    if (key === '__proto__') throw new SyntaxError('field name "__proto__" is not allowed');
    count += 1 + countKeys(record[key]);
  }
  return count;
}

/** Whether a value nests deeper than bodies may; safe for values of any depth. */
export function isTooDeep(value: unknown, levels = JSON_DEPTH_MAX): boolean {
  if (typeof value !== 'object' || value === null) return false;
  if (levels === 0) return true;
  return Object.values(value).some((item) => isTooDeep(item, levels - 1));
}

interface Frame {
  keys: Set<string> | undefined;
  /** The key or index whose value is being read. */
  segment: string | number;
}

/** Paths of duplicate keys in a text that is known to be valid JSON. */
function findDuplicates(text: string): string[] {
  const duplicates: string[] = [];
  const frames: Frame[] = [];
  let expectKey = false;
  for (let at = 0; at < text.length && duplicates.length < DUPLICATES_MAX; at += 1) {
    const character = text[at];
    const frame = frames.at(-1);
    if (character === '"') {
      const end = stringEnd(text, at);
      if (expectKey && frame?.keys) {
        const key = JSON.parse(text.slice(at, end + 1)) as string;
        frame.segment = key;
        if (frame.keys.has(key)) duplicates.push(framePath(frames));
        frame.keys.add(key);
        expectKey = false;
      }
      at = end;
    } else if (character === '{') {
      frames.push({ keys: new Set(), segment: '' });
      expectKey = true;
    } else if (character === '[') {
      frames.push({ keys: undefined, segment: 0 });
      expectKey = false;
    } else if (character === '}' || character === ']') {
      frames.pop();
      expectKey = false;
    } else if (character === ',' && frame) {
      if (frame.keys) expectKey = true;
      else frame.segment = Number(frame.segment) + 1;
    }
  }
  return [...new Set(duplicates)];
}

function framePath(frames: Frame[]): string {
  let path = '';
  for (const { segment } of frames) {
    if (typeof segment === 'number') path += `[${segment}]`;
    else path += path === '' ? segment : `.${segment}`;
  }
  return path;
}
