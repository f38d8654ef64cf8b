import { parseJson } from '../json.ts';
import { formatGoDuration } from '../time.ts';
import { isPointer } from './pointers.ts';
import type { ObjectType, ProtobufMessage, SchemaTable, TypeNode } from './schema.ts';
import { WIRE, WireReader } from './wire.ts';

/** `k8s` and a zero byte open every body in `application/vnd.kubernetes.protobuf`. */
const PROTOBUF_MAGIC = Uint8Array.of(0x6b, 0x38, 0x73, 0x00);
/** Messages in messages; the deepest built-in kind needs 20, schemas of custom resources more. */
const DEPTH_MAX = 100;
/** Two bytes can make an empty object of some 50; without a bound 3 MiB would become 80 MB. */
const VALUES_MAX = 500_000;

const META = 'k8s.io.apimachinery.pkg.apis.meta.v1';
const UNKNOWN = { typeMeta: 1, raw: 2, contentEncoding: 3, contentType: 4 };

interface Pass {
  table: SchemaTable;
  depth: number;
  values: number;
}

/**
 * Reads `k8s\0` and a `runtime.Unknown`, and the object within by its kind's field numbers.
 * Scalars that Go always writes are left out where its JSON would leave them out. `defaults` names
 * the kind of an envelope that names none. Throws `SyntaxError` with the reason.
 */
export function decodeEnvelope(
  table: SchemaTable,
  bytes: Uint8Array,
  defaults?: { apiVersion: string; kind: string },
): Record<string, unknown> {
  if (!PROTOBUF_MAGIC.every((byte, index) => bytes[index] === byte)) {
    throw new SyntaxError('the body does not start with the protobuf prefix "k8s\\x00"');
  }
  const envelope = readUnknown(new WireReader(bytes, PROTOBUF_MAGIC.length));
  const apiVersion = envelope.apiVersion || defaults?.apiVersion || '';
  const kind = envelope.kind || defaults?.kind || '';
  if (envelope.contentEncoding !== '') {
    throw new SyntaxError(`content encoding "${envelope.contentEncoding}" is not supported`);
  }
  if (envelope.contentType === 'application/json') return jsonObject(envelope.raw);
  const type = table.type(table.typeOfKind(apiVersion, kind) ?? '');
  if (!type?.message) {
    throw new SyntaxError(
      `no kind "${kind}" is registered for version "${apiVersion}" in protobuf`,
    );
  }
  const object = decodeMessage(table, type, envelope.raw);
  return { apiVersion, kind, ...object };
}

/** Decodes one message of `type`, without an envelope. Throws `SyntaxError` with the reason. */
export function decodeMessage(
  table: SchemaTable,
  type: ObjectType,
  bytes: Uint8Array,
): Record<string, unknown> {
  const pass: Pass = { table, depth: 0, values: 0 };
  const out: Record<string, unknown> = {};
  readMessage(pass, type.message ?? '', type, bytes, out);
  return out;
}

function readUnknown(reader: WireReader) {
  const found = {
    apiVersion: '',
    kind: '',
    raw: new Uint8Array(0) as Uint8Array,
    contentEncoding: '',
    contentType: '',
  };
  while (!reader.done) {
    const { field, wire } = reader.tag();
    if (wire !== WIRE.bytes) reader.skip(wire);
    else if (field === UNKNOWN.raw) found.raw = reader.bytes();
    else if (field === UNKNOWN.contentEncoding) found.contentEncoding = reader.string();
    else if (field === UNKNOWN.contentType) found.contentType = reader.string();
    else if (field === UNKNOWN.typeMeta) {
      const meta = new WireReader(reader.bytes());
      while (!meta.done) {
        const tag = meta.tag();
        if (tag.wire !== WIRE.bytes) meta.skip(tag.wire);
        else if (tag.field === 1) found.apiVersion = meta.string();
        else if (tag.field === 2) found.kind = meta.string();
        else meta.skip(tag.wire);
      }
    } else reader.skip(wire);
  }
  return found;
}

/** Fields of a message by number. Built once for each message that is met. */
const numbered = new WeakMap<ProtobufMessage, Map<number, [string, string]>>();

function fieldsByNumber(message: ProtobufMessage): Map<number, [string, string]> {
  let fields = numbered.get(message);
  if (!fields) {
    fields = new Map(
      Object.entries(message).map(([name, [number, type]]) => [number, [name, type]]),
    );
    numbered.set(message, fields);
  }
  return fields;
}

function readMessage(
  pass: Pass,
  messageName: string,
  type: ObjectType,
  bytes: Uint8Array,
  out: Record<string, unknown>,
): void {
  const message = pass.table.message(messageName);
  if (!message) throw new SyntaxError(`protobuf message "${messageName}" is not known`);
  if (pass.depth >= DEPTH_MAX)
    throw new SyntaxError(`protobuf nesting exceeds ${DEPTH_MAX} levels`);
  pass.depth += 1;
  const fields = fieldsByNumber(message);
  const reader = new WireReader(bytes);
  while (!reader.done) {
    const { field, wire } = reader.tag();
    const [name, protoType] = fields.get(field) ?? ['', ''];
    if (protoType.startsWith('inline ')) {
      if (wire !== WIRE.bytes) throw wrongWire(name, wire);
      readMessage(pass, protoType.slice(7), type, reader.bytes(), out);
      continue;
    }
    const node = type.fields[name];
    if (!node) {
      reader.skip(wire);
      continue;
    }
    readField(pass, reader, { name, protoType, wire, node, type }, out);
  }
  pass.depth -= 1;
}

interface Field {
  name: string;
  protoType: string;
  wire: number;
  node: TypeNode;
  type: ObjectType;
}

function readField(
  pass: Pass,
  reader: WireReader,
  field: Field,
  out: Record<string, unknown>,
): void {
  pass.values += 1;
  if (pass.values > VALUES_MAX) {
    throw new SyntaxError(`protobuf body holds more than ${VALUES_MAX} values`);
  }
  const { name, protoType, wire, node } = field;
  if (protoType.startsWith('map<string>')) {
    if (wire !== WIRE.bytes) throw wrongWire(name, wire);
    const map = (out[name] ??= {}) as Record<string, unknown>;
    readMapEntry(pass, reader.bytes(), protoType.slice(11), node.values ?? {}, map, name);
  } else if (protoType.startsWith('[]')) {
    const list = (out[name] ??= []) as unknown[];
    readItems(pass, reader, protoType.slice(2), wire, node.items ?? {}, list, name);
  } else {
    const value = readValue(pass, reader, protoType, wire, node, name);
    if (value === undefined || (isZero(value) && !keepsZero(field))) delete out[name];
    else out[name] = value;
  }
}

function isZero(value: unknown): boolean {
  return value === '' || value === 0 || value === false;
}

function keepsZero({ type, name, node }: Field): boolean {
  if (node.default !== undefined || node.format === 'int-or-string') return true;
  return type.required.includes(name) || isPointer(lastName(type.name), name);
}

function lastName(typeName: string): string {
  return typeName.slice(typeName.lastIndexOf('.') + 1);
}

function readItems(
  pass: Pass,
  reader: WireReader,
  protoType: string,
  wire: number,
  node: TypeNode,
  list: unknown[],
  name: string,
): void {
  const packed = wire === WIRE.bytes && (protoType === 'int32' || protoType === 'int64');
  if (!packed) {
    list.push(readValue(pass, reader, protoType, wire, node, name) ?? null);
    return;
  }
  const items = new WireReader(reader.bytes());
  while (!items.done) {
    pass.values += 1;
    if (pass.values > VALUES_MAX) throw new SyntaxError(`protobuf list "${name}" is too long`);
    list.push(protoType === 'int32' ? items.int32() : items.int64());
  }
}

function readMapEntry(
  pass: Pass,
  bytes: Uint8Array,
  protoType: string,
  node: TypeNode,
  map: Record<string, unknown>,
  name: string,
): void {
  const reader = new WireReader(bytes);
  let key = '';
  let value: unknown;
  while (!reader.done) {
    const { field, wire } = reader.tag();
    if (field === 1 && wire === WIRE.bytes) key = reader.string();
    else if (field === 2) value = readValue(pass, reader, protoType, wire, node, name);
    else reader.skip(wire);
  }
  if (key === '__proto__') throw new SyntaxError('field name "__proto__" is not allowed');
  map[key] = value ?? (node.scalar === 'string' ? '' : node.items ? [] : {});
}

function readValue(
  pass: Pass,
  reader: WireReader,
  protoType: string,
  wire: number,
  node: TypeNode,
  name: string,
): unknown {
  const expected = WIRE_OF[protoType] ?? WIRE.bytes;
  if (wire !== expected) throw wrongWire(name, wire);
  switch (protoType) {
    case 'string':
      return reader.string();
    case 'bool':
      return reader.bool();
    case 'int32':
      return reader.int32();
    case 'int64':
      return reader.int64();
    case 'double':
      return reader.double();
    case 'bytes':
      return Buffer.from(reader.bytes()).toString('base64');
    default:
      return readEmbedded(pass, protoType, node, reader.bytes());
  }
}

const WIRE_OF: Record<string, number> = {
  bool: WIRE.varint,
  int32: WIRE.varint,
  int64: WIRE.varint,
  double: WIRE.fixed64,
};

/** Messages that are not objects in JSON, by name; all others are read field by field. */
const SPECIAL: Record<string, (pass: Pass, bytes: Uint8Array) => unknown> = {
  'k8s.io.apimachinery.pkg.api.resource.Quantity': (_pass, bytes) =>
    scalarsOf(bytes)[1]?.toString() || '0',
  'k8s.io.apimachinery.pkg.util.intstr.IntOrString': (_pass, bytes) => intOrString(bytes),
  [`${META}.Time`]: (_pass, bytes) => timeText(bytes, 0),
  [`${META}.MicroTime`]: (_pass, bytes) => timeText(bytes, 6),
  [`${META}.Duration`]: (_pass, bytes) => formatGoDuration(BigInt(varintOf(bytes, 1))),
  [`${META}.FieldsV1`]: (_pass, bytes) => rawJson(bytes),
  'k8s.io.apimachinery.pkg.runtime.RawExtension': rawExtension,
};

function readEmbedded(pass: Pass, protoType: string, node: TypeNode, bytes: Uint8Array): unknown {
  const special = SPECIAL[protoType];
  if (special) return special(pass, bytes);
  if (node.items) return readWrapped(pass, protoType, node.items, bytes);
  const type = pass.table.type(node.ref ?? '');
  if (!type) throw new SyntaxError(`protobuf message "${protoType}" has no type in JSON`);
  const out: Record<string, unknown> = {};
  readMessage(pass, protoType, type, bytes, out);
  return out;
}

/** A named list type of Go (`ExtraValue`) is a message with the one field `items`. */
function readWrapped(pass: Pass, protoType: string, node: TypeNode, bytes: Uint8Array): unknown[] {
  const itemType = pass.table.message(protoType)?.['items']?.[1] ?? '[]string';
  const list: unknown[] = [];
  const reader = new WireReader(bytes);
  while (!reader.done) {
    const { field, wire } = reader.tag();
    if (field === 1) readItems(pass, reader, itemType.slice(2), wire, node, list, 'items');
    else reader.skip(wire);
  }
  return list;
}

/** Last value of each field: numbers of varints, bytes of the rest. */
function scalarsOf(bytes: Uint8Array): Record<number, { toString(): string; bytes?: Uint8Array }> {
  const reader = new WireReader(bytes);
  const found: Record<number, { toString(): string; bytes?: Uint8Array }> = {};
  while (!reader.done) {
    const { field, wire } = reader.tag();
    if (wire === WIRE.varint) {
      const value = reader.int64();
      found[field] = { toString: () => String(value) };
    } else if (wire === WIRE.bytes) {
      const value = reader.bytes();
      found[field] = { toString: () => new TextDecoder().decode(value), bytes: value };
    } else reader.skip(wire);
  }
  return found;
}

function varintOf(bytes: Uint8Array, field: number): number {
  return Number(scalarsOf(bytes)[field]?.toString() ?? 0);
}

const INT_OR_STRING = { type: 1, number: 2, text: 3 };

function intOrString(bytes: Uint8Array): number | string {
  const fields = scalarsOf(bytes);
  const isText = varintOf(bytes, INT_OR_STRING.type) === 1;
  if (isText) return fields[INT_OR_STRING.text]?.toString() ?? '';
  return varintOf(bytes, INT_OR_STRING.number) | 0;
}

/** The zero time is an empty message, and absent in JSON. */
function timeText(bytes: Uint8Array, fractionDigits: number): string | undefined {
  if (bytes.length === 0) return undefined;
  const ms = varintOf(bytes, 1) * 1000;
  if (!(Math.abs(ms) <= 8.64e15)) throw new SyntaxError('protobuf time is out of range');
  const seconds = new Date(ms).toISOString().slice(0, -5);
  const nanos = String(varintOf(bytes, 2)).padStart(9, '0');
  return fractionDigits === 0 ? `${seconds}Z` : `${seconds}.${nanos.slice(0, fractionDigits)}Z`;
}

function rawJson(bytes: Uint8Array): unknown {
  const raw = scalarsOf(bytes)[1]?.bytes;
  return raw && raw.length > 0 ? parseJson(new TextDecoder().decode(raw)).value : undefined;
}

/** A RawExtension carries JSON, or an envelope of its own. */
function rawExtension(pass: Pass, bytes: Uint8Array): unknown {
  const raw = scalarsOf(bytes)[1]?.bytes;
  const enveloped = raw !== undefined && PROTOBUF_MAGIC.every((byte, at) => raw[at] === byte);
  if (!enveloped) return rawJson(bytes);
  if (pass.depth >= DEPTH_MAX)
    throw new SyntaxError(`protobuf nesting exceeds ${DEPTH_MAX} levels`);
  return decodeNested(pass, raw);
}

function decodeNested(pass: Pass, raw: Uint8Array): Record<string, unknown> {
  const { apiVersion, kind, raw: inner } = readUnknown(new WireReader(raw, PROTOBUF_MAGIC.length));
  const type = pass.table.type(pass.table.typeOfKind(apiVersion, kind) ?? '');
  if (!type?.message) {
    throw new SyntaxError(
      `no kind "${kind}" is registered for version "${apiVersion}" in protobuf`,
    );
  }
  const out: Record<string, unknown> = { apiVersion, kind };
  pass.depth += 1;
  readMessage(pass, type.message, type, inner, out);
  pass.depth -= 1;
  return out;
}

function jsonObject(raw: Uint8Array): Record<string, unknown> {
  const { value } = parseJson(new TextDecoder().decode(raw));
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new SyntaxError('the enveloped JSON is not an object');
  }
  return value as Record<string, unknown>;
}

function wrongWire(name: string, wire: number): SyntaxError {
  return new SyntaxError(`protobuf field "${name}" cannot have wire type ${wire}`);
}
