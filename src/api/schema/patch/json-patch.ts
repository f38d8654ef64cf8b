import { isDeepStrictEqual } from 'node:util';
import { badRequest, StatusError } from '../../status.ts';

/** kube-apiserver's limit. */
export const JSON_PATCH_OPERATIONS_MAX = 10_000;
/** Bytes that `copy` may add in all: each can double the document, and thirty make 3 TB of 3 KB. */
const JSON_PATCH_COPY_BYTES_MAX = 3 * 1024 * 1024;
/** List elements that all operations may shift; ten thousand inserts before a long list would. */
const JSON_PATCH_SHIFTS_MAX = 20_000_000;
/** Segments of a path; no document that is accepted is deeper. */
const PATH_SEGMENTS_MAX = 400;

type Json = unknown;
type Container = Json[] | Record<string, Json>;

interface Pass {
  document: Json;
  copyBytes: number;
  shifts: number;
}

/**
 * Applies an RFC 6902 patch and returns the new document; the old one is left alone. Throws 400
 * for a malformed patch, 413 beyond a limit, 422 for an operation that does not apply (a failed
 * `test` among them).
 */
export function applyJsonPatch(document: Json, patch: Json): Json {
  if (!Array.isArray(patch)) {
    throw badRequest('error decoding patch: a JSON patch is an array of operations');
  }
  if (patch.length > JSON_PATCH_OPERATIONS_MAX) {
    const limit = `The allowed maximum operations in a JSON patch is ${JSON_PATCH_OPERATIONS_MAX}`;
    throw tooLarge(`${limit}, got ${patch.length}`);
  }
  const pass = { document: structuredClone(document), copyBytes: 0, shifts: 0 };
  try {
    for (const operation of patch) applyOperation(pass, checkOperation(operation));
  } catch (error) {
    // Copies and moves can nest deeper than the stack reaches.
    if (error instanceof RangeError) throw tooLarge('the patched object is nested too deep');
    throw error;
  }
  return pass.document;
}

interface Operation {
  op: string;
  path: string;
  from: string;
  value: Json;
}

const OPERATIONS: Record<string, (pass: Pass, operation: Operation) => void> = {
  test: (pass, { path, value }) => {
    const found = find(pass, path, 'test');
    if (!isDeepStrictEqual(found ?? null, value ?? null)) {
      throw rejected(`testing value ${path} failed`);
    }
  },
  add: (pass, { path, value }) => insert(pass, path, structuredClone(value), 'add'),
  replace: (pass, { path, value }) => {
    find(pass, path, 'replace');
    assign(pass, path, structuredClone(value));
  },
  remove: (pass, { path }) => {
    remove(pass, path, 'remove');
  },
  copy: (pass, { path, from }) => {
    const found = find(pass, from, 'copy');
    pass.copyBytes += JSON.stringify(found)?.length ?? 0;
    if (pass.copyBytes > JSON_PATCH_COPY_BYTES_MAX) {
      throw tooLarge(`the copies of a JSON patch exceed ${JSON_PATCH_COPY_BYTES_MAX} bytes`);
    }
    insert(pass, path, structuredClone(found), 'copy');
  },
  move: (pass, { path, from }) => {
    if (path.startsWith(`${from}/`)) throw rejected(`cannot move "${from}" into itself`);
    if (path === from) find(pass, from, 'move');
    else insert(pass, path, remove(pass, from, 'move'), 'move');
  },
};

function applyOperation(pass: Pass, operation: Operation): void {
  OPERATIONS[operation.op]?.(pass, operation);
}

function checkOperation(operation: unknown): Operation {
  const given = (operation ?? {}) as Partial<Operation>;
  const { op, path, from, value } = given;
  if (typeof op !== 'string' || !Object.hasOwn(OPERATIONS, op)) {
    throw rejected(`Unexpected kind: ${String(op).slice(0, 64)}`);
  }
  if (typeof path !== 'string') throw rejected(`${op} operation is missing its path`);
  if ((op === 'copy' || op === 'move') && typeof from !== 'string') {
    throw rejected(`${op} operation is missing its from`);
  }
  if ((op === 'add' || op === 'replace') && !('value' in given)) {
    throw rejected(`${op} operation is missing its value`);
  }
  return { op, path, from: from ?? '', value };
}

function pointer(path: string): string[] {
  if (path === '') return [];
  if (!path.startsWith('/')) throw rejected(`path "${path.slice(0, 64)}" does not start with "/"`);
  const segments = path.slice(1).split('/', PATH_SEGMENTS_MAX + 1);
  if (segments.length > PATH_SEGMENTS_MAX) {
    throw rejected(`a path has more than ${PATH_SEGMENTS_MAX} segments`);
  }
  return segments.map((segment) => segment.replaceAll('~1', '/').replaceAll('~0', '~'));
}

function find(pass: Pass, path: string, op: string): Json {
  let value = pass.document;
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

/** The object or list that holds the last segment of a path, and that segment. */
function parentOf(pass: Pass, path: string, op: string): [Container, string] {
  const keys = pointer(path);
  const key = keys.pop() ?? '';
  let parent = pass.document;
  for (const segment of keys) parent = member(parent, segment, op, path);
  if (typeof parent !== 'object' || parent === null) throw missing(op, path);
  return [parent as Container, key];
}

function insert(pass: Pass, path: string, value: Json, op: string): void {
  if (path === '') {
    pass.document = value;
    return;
  }
  const [parent, key] = parentOf(pass, path, op);
  if (Array.isArray(parent)) {
    const index = key === '-' ? parent.length : arrayIndex(key);
    if (index === undefined || index > parent.length) throw missing(op, path);
    shift(pass, parent.length - index);
    parent.splice(index, 0, value);
  } else if (key === '__proto__') {
    throw rejected('field name "__proto__" is not allowed');
  } else parent[key] = value;
}

/** Puts a value in the place of one that exists. */
function assign(pass: Pass, path: string, value: Json): void {
  if (path === '') {
    pass.document = value;
    return;
  }
  const [parent, key] = parentOf(pass, path, 'replace');
  if (Array.isArray(parent)) parent[Number(key)] = value;
  else parent[key] = value;
}

function remove(pass: Pass, path: string, op: string): Json {
  if (path === '') throw rejected(`${op} operation does not apply: the whole object stays`);
  const [parent, key] = parentOf(pass, path, op);
  const removed = member(parent, key, op, path);
  if (Array.isArray(parent)) {
    shift(pass, parent.length - Number(key));
    parent.splice(Number(key), 1);
  } else delete parent[key];
  return removed;
}

function shift(pass: Pass, count: number): void {
  pass.shifts += count;
  if (pass.shifts > JSON_PATCH_SHIFTS_MAX) {
    throw tooLarge(`a JSON patch may shift ${JSON_PATCH_SHIFTS_MAX} list elements in all`);
  }
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

function tooLarge(message: string): StatusError {
  return new StatusError('RequestEntityTooLarge', message);
}
