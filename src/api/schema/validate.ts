import type { KubeObject } from '../object.ts';
import { canonicalQuantity } from '../quantity.ts';
import { invalid, StatusError } from '../status.ts';
import type { StatusCause } from '../status.ts';
import { canonicalMicroTime, canonicalTime } from '../time.ts';
import type {
  ObjectType,
  ResourceRow,
  SchemaTable,
  StructuralFindings,
  TypeNode,
} from './schema.ts';

/** Further unknown fields are dropped in silence, as Kubernetes' decoder does. */
const UNKNOWN_FIELDS_MAX = 100;
/** One is enough for the client; more would let a small body make a large answer. */
const STRUCTURAL_ERRORS_MAX = 16;

/** Required by the documents, yet empty or filled in later: Go's decoder never asks for them. */
const MAY_BE_ABSENT = new Set([
  'HTTPHeader.value',
  'PodDNSConfigOption.value',
  'RoleRef.apiGroup',
  'Sysctl.value',
]);
/** Parts that other writers complete: what is missing there becomes Go's zero value. */
const LENIENT_ROOTS = new Set(['status', 'metadata']);

interface Pass {
  table: SchemaTable;
  path: (string | number)[];
  unknown: string[];
  errors: StatusCause[];
}

const ABSENT = Symbol('absent');

/**
 * Checks types and required fields of `value` against the type named, drops unknown fields and
 * nulls, and brings quantities, times and base64 into canonical form. Returns a new value whose
 * `any` parts are shared with the argument. Throws for a type the table does not have.
 */
export function structure(
  table: SchemaTable,
  typeName: string,
  value: unknown,
): { value: KubeObject } & StructuralFindings {
  const type = table.type(typeName);
  if (!type) throw new RangeError(`cannot check a value: type "${typeName}" is not in the table`);
  const pass: Pass = { table, path: [], unknown: [], errors: [] };
  const result = isRecord(value)
    ? walkObject(pass, type, value)
    : mismatch(pass, value, goName(type.name), type);
  const object = (result === ABSENT ? {} : result) as KubeObject;
  return { value: object, unknown: pass.unknown, errors: pass.errors };
}

/**
 * What a request with these findings is answered with: 400 in the words of Go's decoder when a
 * type does not fit, 422 when a required field is missing, undefined when all is well.
 */
export function structuralFailure(
  row: { group: string; version: string; kind: string },
  name: string,
  findings: StructuralFindings,
): StatusError | undefined {
  const mistyped = findings.errors.find((error) => error.reason === 'FieldValueTypeInvalid');
  if (mistyped) {
    const subject = `${row.kind} in version "${row.version}"`;
    const message = `${subject} cannot be handled as a ${row.kind}: ${mistyped.message}`;
    return new StatusError('BadRequest', message);
  }
  if (findings.errors.length === 0) return undefined;
  return invalid(row.group, row.kind, name, findings.errors);
}

/**
 * The 400 of `fieldValidation=Strict`, or undefined. `problems` are the texts that
 * `strictProblems` makes; with `Warn` they go into `Warning` headers instead.
 */
export function strictFailure(row: ResourceRow, problems: string[]): StatusError | undefined {
  if (problems.length === 0) return undefined;
  const subject = `${row.kind} in version "${row.version}"`;
  const message = `${subject} cannot be handled as a ${row.kind}: strict decoding error: `;
  return new StatusError('BadRequest', message + problems.join(', '));
}

/** `duplicate field "x"` and `unknown field "y"`, as kubectl prints them. */
export function strictProblems(duplicates: string[], unknown: string[]): string[] {
  return [
    ...duplicates.map((path) => `duplicate field ${JSON.stringify(path)}`),
    ...unknown.map((path) => `unknown field ${JSON.stringify(path)}`),
  ];
}

function walkObject(pass: Pass, type: ObjectType, value: Record<string, unknown>): unknown {
  const out: Record<string, unknown> = {};
  for (const key of Object.keys(value)) {
    const node = type.fields[key];
    if (!node) {
      if (pass.unknown.length < UNKNOWN_FIELDS_MAX) {
        pass.path.push(key);
        pass.unknown.push(pathText(pass.path));
        pass.path.pop();
      }
      continue;
    }
    const field = value[key];
    if (field === null || field === undefined) continue;
    pass.path.push(key);
    const walked = walkNode(pass, node, field, type);
    pass.path.pop();
    if (walked !== ABSENT) out[key] = walked;
  }
  for (const name of type.required) {
    if (out[name] === undefined) fillRequired(pass, type, name, out, value[name] == null);
  }
  return out;
}

function walkNode(pass: Pass, node: TypeNode, value: unknown, owner: ObjectType): unknown {
  if (node.scalar) return scalar(pass, node, value, owner);
  if (node.ref) {
    const type = pass.table.type(node.ref);
    if (!type) throw new RangeError(`cannot check a value: type "${node.ref}" is not in the table`);
    if (!isRecord(value)) return mismatch(pass, value, goName(node.ref), owner);
    return walkObject(pass, type, value);
  }
  if (node.items) return walkList(pass, node, node.items, value, owner);
  if (node.values) return walkMap(pass, node, node.values, value, owner);
  if ((node.format === 'raw-extension' || node.format === 'fields-v1') && !isRecord(value)) {
    return mismatch(pass, value, goType(node), owner);
  }
  return value;
}

function walkList(
  pass: Pass,
  node: TypeNode,
  items: TypeNode,
  value: unknown,
  owner: ObjectType,
): unknown {
  if (!Array.isArray(value)) return mismatch(pass, value, goType(node), owner);
  const out: unknown[] = new Array(value.length);
  for (let index = 0; index < value.length; index += 1) {
    pass.path.push(index);
    const item = value[index] ?? zeroOf(items);
    const walked = item === null ? null : walkNode(pass, items, item, owner);
    out[index] = walked === ABSENT ? null : walked;
    pass.path.pop();
  }
  return out;
}

function walkMap(
  pass: Pass,
  node: TypeNode,
  values: TypeNode,
  value: unknown,
  owner: ObjectType,
): unknown {
  if (!isRecord(value)) return mismatch(pass, value, goType(node), owner);
  const out: Record<string, unknown> = {};
  for (const key of Object.keys(value)) {
    const item = value[key] ?? zeroOf(values);
    if (item === null) continue;
    pass.path.push(key);
    const walked = walkNode(pass, values, item, owner);
    pass.path.pop();
    if (walked !== ABSENT) out[key] = walked;
  }
  return out;
}

function scalar(pass: Pass, node: TypeNode, value: unknown, owner: ObjectType): unknown {
  switch (node.scalar) {
    case 'boolean':
      return typeof value === 'boolean' ? value : mismatch(pass, value, 'bool', owner);
    case 'integer':
      return integer(pass, node, value, owner);
    case 'number':
      return typeof value === 'number' ? value : mismatch(pass, value, 'float64', owner);
    default:
      return node.format ? formatted(pass, node, value, owner) : plain(pass, value, owner);
  }
}

function plain(pass: Pass, value: unknown, owner: ObjectType): unknown {
  return typeof value === 'string' ? value : mismatch(pass, value, 'string', owner);
}

const INT32_MAX = 2 ** 31 - 1;

function integer(pass: Pass, node: TypeNode, value: unknown, owner: ObjectType): unknown {
  const goInteger = node.format ?? 'int64';
  if (typeof value !== 'number') return mismatch(pass, value, goInteger, owner);
  const fits =
    Number.isInteger(value) &&
    (goInteger === 'int32'
      ? value <= INT32_MAX && value >= -INT32_MAX - 1
      : Math.abs(value) < 2 ** 63);
  if (fits) return value;
  return fail(
    pass,
    `json: cannot unmarshal number ${value} into ${goField(pass, owner)} of type ${goInteger}`,
  );
}

function formatted(pass: Pass, node: TypeNode, value: unknown, owner: ObjectType): unknown {
  switch (node.format) {
    case 'quantity':
      return quantity(pass, value, owner);
    case 'int-or-string':
      if (typeof value === 'string') return value;
      return integer(pass, { scalar: 'integer', format: 'int32' }, value, owner);
    case 'date-time':
      return time(pass, value, owner, canonicalTime, '2006-01-02T15:04:05Z07:00');
    case 'micro-time':
      return time(pass, value, owner, canonicalMicroTime, '2006-01-02T15:04:05.000000Z07:00');
    case 'byte':
      return base64(pass, value, owner);
    default:
      return plain(pass, value, owner);
  }
}

function quantity(pass: Pass, value: unknown, owner: ObjectType): unknown {
  if (typeof value !== 'string' && typeof value !== 'number') {
    return mismatch(pass, value, 'resource.Quantity', owner);
  }
  const canonical = canonicalQuantity(String(value));
  return canonical.ok ? canonical.text : fail(pass, canonical.text);
}

function time(
  pass: Pass,
  value: unknown,
  owner: ObjectType,
  canonical: (text: string) => string | undefined,
  layout: string,
): unknown {
  if (typeof value !== 'string') return mismatch(pass, value, 'string', owner);
  const text = canonical(value);
  if (text !== undefined) return text;
  const shown = JSON.stringify(value.slice(0, 64));
  return fail(pass, `parsing time ${shown} as "${layout}": cannot parse ${shown} as "2006"`);
}

const BASE64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;

function base64(pass: Pass, value: unknown, owner: ObjectType): unknown {
  if (typeof value !== 'string') return mismatch(pass, value, '[]uint8', owner);
  const joined = /[\r\n]/.test(value) ? value.replace(/[\r\n]+/g, '') : value;
  if (joined.length % 4 === 0 && BASE64.test(joined)) return joined;
  const bad = joined.search(/[^A-Za-z0-9+/]/);
  const at = bad < 0 ? joined.length - (joined.length % 4) : bad;
  return fail(pass, `illegal base64 data at input byte ${at}`);
}

/** Gives a missing required field Go's zero value, or reports it. */
function fillRequired(
  pass: Pass,
  type: ObjectType,
  name: string,
  out: Record<string, unknown>,
  missing: boolean,
): void {
  const node = type.fields[name];
  // A field that was given and did not fit has been reported.
  if (!node || !missing) return;
  const zero = zeroOf(node);
  const lenient =
    LENIENT_ROOTS.has(String(pass.path[0] ?? name)) ||
    MAY_BE_ABSENT.has(`${goName(type.name, '')}.${name}`);
  if (node.ref && node.default !== undefined) {
    pass.path.push(name);
    out[name] = walkNode(pass, node, {}, type);
    pass.path.pop();
  } else if (node.scalar && node.scalar !== 'string') {
    out[name] = zero;
  } else if (lenient) {
    if (node.scalar && !node.format) out[name] = zero;
  } else if (node.scalar || node.ref) {
    pass.path.push(name);
    report(pass, {
      reason: 'FieldValueRequired',
      message: 'Required value',
      field: pathText(pass.path),
    });
    pass.path.pop();
  }
}

/** What Go's decoder makes of null in a list or map of such elements. */
function zeroOf(node: TypeNode): unknown {
  if (node.ref) return {};
  if (node.items || node.values || node.any) return null;
  if (node.scalar === 'boolean') return false;
  if (node.scalar === 'integer' || node.scalar === 'number') return 0;
  if (node.format === 'quantity') return '0';
  if (node.format === 'int-or-string') return 0;
  return node.format === 'date-time' || node.format === 'micro-time' ? null : '';
}

function mismatch(pass: Pass, value: unknown, wanted: string, owner: ObjectType): typeof ABSENT {
  const given = Array.isArray(value)
    ? 'array'
    : typeof value === 'boolean'
      ? 'bool'
      : value === null
        ? 'null'
        : typeof value;
  return fail(
    pass,
    `json: cannot unmarshal ${given} into ${goField(pass, owner)} of type ${wanted}`,
  );
}

function fail(pass: Pass, message: string): typeof ABSENT {
  report(pass, { reason: 'FieldValueTypeInvalid', message, field: pathText(pass.path) });
  return ABSENT;
}

function report(pass: Pass, cause: StatusCause): void {
  if (pass.errors.length < STRUCTURAL_ERRORS_MAX) pass.errors.push(cause);
}

/** `Go struct field Container.spec.containers.image`: the innermost struct, and names only. */
function goField(pass: Pass, owner: ObjectType): string {
  if (pass.path.length === 0) return 'Go value';
  const names = pass.path.filter((segment) => typeof segment === 'string');
  return `Go struct field ${goName(owner.name, '')}.${names.join('.')}`;
}

/** `io.k8s.api.core.v1.Container` → `v1.Container`. */
function goName(typeName: string, separator = '.'): string {
  const parts = typeName.split('.');
  return separator === '' ? (parts.at(-1) ?? typeName) : parts.slice(-2).join(separator);
}

function goType(node: TypeNode): string {
  if (node.items) return `[]${goType(node.items)}`;
  if (node.values) return `map[string]${goType(node.values)}`;
  if (node.ref) return goName(node.ref);
  if (node.any) return 'map[string]interface {}';
  if (node.scalar === 'boolean') return 'bool';
  return node.scalar === 'integer' ? (node.format ?? 'int64') : 'string';
}

/** `spec.containers[0].foo`. */
function pathText(path: readonly (string | number)[]): string {
  let text = '';
  for (const segment of path) {
    if (typeof segment === 'number') text += `[${segment}]`;
    else text += text === '' ? segment : `.${segment}`;
  }
  return text;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
