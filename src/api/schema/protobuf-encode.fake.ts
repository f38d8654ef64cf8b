import type { ObjectType, ProtobufMessage, SchemaTable } from './schema.ts';

/**
 * An encoder for tests, written without the decoder's code: what one gets wrong about the wire
 * format the other does not repeat.
 */
export function encodeEnvelope(
  table: SchemaTable,
  type: ObjectType,
  object: Record<string, unknown>,
): Uint8Array {
  const meta = [text(1, String(object['apiVersion'])), text(2, String(object['kind']))];
  const raw = encodeFields(table, table.message(type.message ?? '') ?? {}, object);
  return Buffer.concat([Buffer.from('k8s\0'), block(1, Buffer.concat(meta)), block(2, raw)]);
}

function encodeFields(
  table: SchemaTable,
  message: ProtobufMessage,
  object: Record<string, unknown>,
): Uint8Array {
  const parts: Uint8Array[] = [];
  for (const [name, [number, type]] of Object.entries(message)) {
    if (type.startsWith('inline ')) {
      parts.push(block(number, encodeFields(table, table.message(type.slice(7)) ?? {}, object)));
      continue;
    }
    const value = object[name];
    if (value === undefined) continue;
    if (type.startsWith('map<string>')) {
      for (const [key, item] of Object.entries(value as object)) {
        parts.push(
          block(number, Buffer.concat([text(1, key), encodeValue(table, 2, type.slice(11), item)])),
        );
      }
    } else if (type.startsWith('[]')) {
      for (const item of value as unknown[])
        parts.push(encodeValue(table, number, type.slice(2), item));
    } else parts.push(encodeValue(table, number, type, value));
  }
  return Buffer.concat(parts);
}

function encodeValue(table: SchemaTable, number: number, type: string, value: unknown): Uint8Array {
  if (type === 'string') return text(number, value as string);
  if (type === 'bool') return integer(number, value ? 1 : 0);
  if (type === 'int32' || type === 'int64') return integer(number, value as number);
  if (type === 'bytes') return block(number, Buffer.from(value as string, 'base64'));
  const name = type.slice(type.lastIndexOf('.') + 1);
  if (name === 'Quantity') return block(number, text(1, value as string));
  if (name === 'Time' || name === 'MicroTime') {
    const nanos = Number(/\.(\d{6})Z$/.exec(value as string)?.[1] ?? 0) * 1000;
    const seconds = Math.floor(Date.parse(value as string) / 1000);
    return block(number, Buffer.concat([integer(1, seconds), integer(2, nanos)]));
  }
  if (name === 'IntOrString') {
    const isText = typeof value === 'string';
    const parts = [
      integer(1, isText ? 1 : 0),
      integer(2, isText ? 0 : (value as number)),
      text(3, isText ? value : ''),
    ];
    return block(number, Buffer.concat(parts));
  }
  if (name === 'RawExtension' || name === 'FieldsV1')
    return block(number, text(1, JSON.stringify(value)));
  if (Array.isArray(value))
    return block(number, Buffer.concat(value.map((item) => text(1, item as string))));
  return block(
    number,
    encodeFields(table, table.message(type) ?? {}, value as Record<string, unknown>),
  );
}

function text(number: number, value: string): Uint8Array {
  return block(number, Buffer.from(value, 'utf8'));
}

function block(number: number, bytes: Uint8Array): Uint8Array {
  return Buffer.concat([varint(BigInt(number) * 8n + 2n), varint(BigInt(bytes.length)), bytes]);
}

function integer(number: number, value: number): Uint8Array {
  return Buffer.concat([varint(BigInt(number) * 8n), varint(BigInt.asUintN(64, BigInt(value)))]);
}

function varint(value: bigint): Uint8Array {
  const bytes: number[] = [];
  let rest = value;
  do {
    bytes.push(Number(rest % 128n) + (rest >= 128n ? 128 : 0));
    rest /= 128n;
  } while (rest > 0n);
  return Uint8Array.from(bytes);
}
