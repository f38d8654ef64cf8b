import { badRequest, StatusError } from '../../status.ts';
import { isDeepStrictEqual } from 'node:util';

/** kube-apiserver's limit; each operation may copy a path of the object. */
export const JSON_PATCH_OPERATIONS_MAX = 10_000;
/** Bytes that `copy` may add in all: ten doublings of 3 KB would otherwise make 3 MB, twenty 3 GB. */
export const JSON_PATCH_COPY_BYTES_MAX = 3 * 1024 * 1024;

type Json = unknown;
type Edit = (parent: Json, key: string) => Json;

/**
 * Applies an RFC 6902 patch and returns the new document; the old one is left alone. Throws 400
 * for a malformed patch, 413 beyond a limit, 422 for an operation that does not apply (a failed
 * `test` among them), each in the words of Kubernetes.
 */
export function applyJsonPatch(document: Json, patch: Json): Json {
  if (!Array.isArray(patch)) {
    throw badRequest('error decoding patch: a JSON patch is an array of operations');
  }
  if (patch.length > JSON_PATCH_OPERATIONS_MAX) {
    const message = `The allowed maximum operations in a JSON patch is ${JSON_PATCH_OPERATIONS_MAX}, got ${patch.length}`;
    throw new StatusError('RequestEntityTooLarge', message);
  }
  const budget = { copyBytes: JSON_PATCH_COPY_BYTES_MAX };
  return patch.reduce<Json>((value, operation) => applyOperation(value, operation, budget), document);
}

interface Operation {
  op: string;
  path: string;
  from?: unknown;
  value?: unknown;
}

function applyOperation(document: Json, operation: unknown, budget: { copyBytes: number }): Json {
  const { op, path, from, value } = checkOperation(operation);
  switch (op) {
    case 'test':
      if (!isDeepStrictEqual(find(document, path, op) ?? null, value ?? null)) {
        throw rejected(`testing value ${path} failed`);
      }
      return document;
    case 'add':
      return insert(document, path, value, op);
    case 'replace':
      find(document, path, op);
      return path === '' ? value : edit(document, pointer(path), op, path, replaceMember(value));
    case 'remove':
      return remove(document, path, op);
    case 'copy': {
      const copied = find(document, String(from), op);
      budget.copyBytes -= JSON.stringify(copied)?.length ?? 0;
      if (budget.copyBytes < 0) {
        const message = `the copies of a JSON patch exceed ${JSON_PATCH_COPY_BYTES_MAX} bytes`;
        throw new StatusError('RequestEntityTooLarge', message);
      }
      return insert(document, path, structuredClone(copied), op);
    }
    default: {
      const moved = find(document, String(from), op);
      if (path === from) return document;
      if (path.startsWith(`${String(from)}/`)) throw rejected(`cannot move ${String(from)} into itself`);
      return insert(remove(document, String(from), op), path, moved, op);
    }
  }
}

const OPERATIONS = new Set(['test', 'add', 'replace', 'remove', 'copy', 'move']);

function checkOperation(operation: unknown): Operation {
  const { op, path, from, value } = (operation ?? {}) as Partial<Operation>;
  if (typeof op !== 'string' || !OPERATIONS.has(op)) {
    throw rejected(`Unexpected kind: ${String(op).slice(0, 64)}`);
  }
  if (typeof path !== 'string') throw rejected(`${op} operation is missing its path`);
  if ((op === 'copy' || op === 'move') && typeof from !== 'string') {
    throw rejected(`${op} operation is missing its from`);
  }
  const given = typeof operation === 'object' && operation !== null && 'value' in operation;
  if ((op === 'add' || op === 'replace') && !given) {
    throw rejected(`${op} operation does not apply: value is missing`);
  }
  return { op, path, from, value };
}

function pointer(path: string): string[] {
  if (path === '') return [];
  if (!path.startsWith('/')) throw rejected(`path "${path.slice(0, 64)}" does not start with "/"`);
  return path
    .slice(1)
    .split('/')
    .map((segment) => segment.replaceAll('~1', '/').replaceAll('~0', '~'));
}

function find(document: Json, path: string, op: string): Json {
  let value = document;
  for (const key of pointer(path)) value = member(value, key, op, path);
  return value;
}

function member(parent: Json, key: string, op: string, path: string): Json {
  if (Array.isArray(parent)) {
    const index = arrayIndex(key);
    if (index !== undefined && index < parent.length) return parent[index];
  } else if (typeof parent === 'object' && parent !== null && Object.hasOwn(parent, key)) {
    return (parent as Record<string, Json>)[key];
  }
  throw missing(op, path);
}

function insert(document: Json, path: string, value: Json, op: string): Json {
  if (path === '') return value;
  return edit(document, pointer(path), op, path, (parent, key) => {
    if (!Array.isArray(parent)) return withMember(parent, key, value, op, path);
    const index = key === '-' ? parent.length : arrayIndex(key);
    if (index === undefined || index > parent.length) throw missing(op, path);
    return parent.toSpliced(index, 0, value);
  });
}

function remove(document: Json, path: string, op: string): Json {
  if (path === '') throw rejected('remove operation does not apply: the whole object cannot be removed');
  return edit(document, pointer(path), op, path, (parent, key) => {
    member(parent, key, op, path);
    if (Array.isArray(parent)) return parent.toSpliced(Number(key), 1);
    const { [key]: _removed, ...rest } = parent as Record<string, Json>;
    return rest;
  });
}

function replaceMember(value: Json): Edit {
  return (parent, key) =>
    Array.isArray(parent)
      ? parent.with(Number(key), value)
      : { ...(parent as Record<string, Json>), [key]: value };
}

/** Copies the path down to the parent of its last segment, and there applies `change`. */
function edit(value: Json, keys: string[], op: string, path: string, change: Edit): Json {
  const [key = '', ...rest] = keys;
  if (rest.length === 0) return change(value, key);
  return replaceMember(edit(member(value, key, op, path), rest, op, path, change))(value, key);
}

function withMember(parent: Json, key: string, value: Json, op: string, path: string): Json {
  if (typeof parent !== 'object' || parent === null) throw missing(op, path);
  if (key === '__proto__') throw rejected('field name "__proto__" is not allowed');
  return { ...parent, [key]: value };
}

function arrayIndex(key: string): number | undefined {
  return /^(?:0|[1-9]\d{0,8})$/.test(key) ? Number(key) : undefined;
}

function missing(op: string, path: string): StatusError {
  const shown = JSON.stringify(path.slice(0, 256));
  return rejected(`${op} operation does not apply: doc is missing path: ${shown}: missing value`);
}

function rejected(reason: string): StatusError {
  const message = 'the server rejected our request due to an error in our request';
  return new StatusError('Invalid', `${message}: ${reason}`, { details: {} });
}
