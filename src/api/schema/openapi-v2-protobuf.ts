/**
 * OpenAPI v2 in the protobuf messages of gnostic (`openapi.v2.Document`), which older clients
 * insist on. Field numbers are those of its OpenAPIv2.proto. Only what our documents contain.
 */
type Json = Record<string, unknown>;

const VARINT = 0;
const LENGTH_DELIMITED = 2;

export function encodeOpenApiV2(document: Json): Uint8Array {
  const info = document['info'] as Json;
  return message(
    text(1, document['swagger']),
    block(2, message(text(1, info['title']), text(2, info['version']))),
    block(8, named(2, document['paths'], pathItem)),
    block(9, named(1, document['definitions'], schema)),
  );
}

const METHODS = { get: 2, put: 3, post: 4, delete: 5, options: 6, head: 7, patch: 8 } as const;

function pathItem(item: Json): Uint8Array {
  const operations = Object.entries(METHODS).filter(([method]) => item[method]);
  return message(
    ...operations.map(([method, number]) => block(number, operation(item[method] as Json))),
  );
}

function operation(value: Json): Uint8Array {
  const parameters = value['parameters'] as Json[];
  return message(
    ...texts(6, value['produces']),
    ...texts(7, value['consumes']),
    ...parameters.map((each) => block(8, block(1, parameter(each)))),
    block(
      9,
      named(1, value['responses'], (response) => block(1, responseMessage(response))),
    ),
    ...extensions(13, value),
  );
}

function parameter(value: Json): Uint8Array {
  if (value['in'] === 'body') {
    const body = message(
      text(2, value['name']),
      text(3, 'body'),
      block(5, schema(value['schema'] as Json)),
    );
    return block(1, body);
  }
  const query = message(
    text(2, value['in']),
    text(4, value['name']),
    text(6, value['type']),
    flag(20, value['uniqueItems']),
  );
  return block(2, block(3, query));
}

function responseMessage(value: Json): Uint8Array {
  const body = value['schema'] as Json | undefined;
  return message(text(1, value['description']), body ? block(2, block(1, schema(body))) : NOTHING);
}

function schema(value: Json): Uint8Array {
  const items = value['items'] as Json | undefined;
  const values = value['additionalProperties'] as Json | undefined;
  return message(
    text(1, value['$ref']),
    text(2, value['format']),
    ...texts(19, value['required']),
    values ? block(21, block(1, schema(values))) : NOTHING,
    value['type'] ? block(22, text(1, value['type'])) : NOTHING,
    items ? block(23, block(1, schema(items))) : NOTHING,
    value['properties'] ? block(25, named(1, value['properties'], schema)) : NOTHING,
    ...extensions(31, value),
  );
}

/** Extensions hold YAML; JSON is YAML. */
function extensions(number: number, value: Json): Uint8Array[] {
  return Object.entries(value)
    .filter(([name]) => name.startsWith('x-'))
    .map(([name, extension]) => {
      const any = text(2, JSON.stringify(extension));
      return block(number, message(text(1, name), block(2, any)));
    });
}

// --- The wire format -------------------------------------------------------------------------

const NOTHING = new Uint8Array(0);

/** A map, as gnostic has it: repeated pairs of name and value. */
function named(number: number, map: unknown, encode: (value: Json) => Uint8Array): Uint8Array {
  const entries = Object.entries(map as Record<string, Json>);
  return message(
    ...entries.map(([name, value]) =>
      block(number, message(text(1, name), block(2, encode(value)))),
    ),
  );
}

function message(...parts: Uint8Array[]): Uint8Array {
  return Buffer.concat(parts);
}

function text(number: number, value: unknown): Uint8Array {
  return typeof value === 'string' ? block(number, Buffer.from(value)) : NOTHING;
}

function texts(number: number, values: unknown): Uint8Array[] {
  return ((values ?? []) as string[]).map((value) => text(number, value));
}

function flag(number: number, value: unknown): Uint8Array {
  return value === true ? Buffer.from([...varint(number * 8 + VARINT), 1]) : NOTHING;
}

function block(number: number, bytes: Uint8Array): Uint8Array {
  const head = [...varint(number * 8 + LENGTH_DELIMITED), ...varint(bytes.length)];
  return Buffer.concat([Buffer.from(head), bytes]);
}

function varint(value: number): number[] {
  const bytes: number[] = [];
  let rest = value;
  for (; rest > 0x7f; rest = Math.floor(rest / 128)) bytes.push((rest % 128) | 0x80);
  bytes.push(rest);
  return bytes;
}
