import { badRequest, StatusError } from '../status.ts';
import { parseJson } from '../json.ts';
import type { ParsedJson } from '../json.ts';
import { parseYaml } from '../yaml.ts';
import { decodeEnvelope } from './protobuf.ts';
import type { SchemaTable } from './schema.ts';

/** kube-apiserver's limit of a request body. */
export const BODY_BYTES_MAX = 3 * 1024 * 1024;

const MEDIA_TYPES = {
  json: 'application/json',
  yaml: 'application/yaml',
  protobuf: 'application/vnd.kubernetes.protobuf',
} as const;

export interface DecodedBody {
  /** Always an object; nothing of it has been checked against a type yet. */
  value: Record<string, unknown>;
  /** Empty where the body names none. */
  apiVersion: string;
  kind: string;
  /** Paths of duplicate keys, for `fieldValidation`. */
  duplicates: string[];
  encoding: keyof typeof MEDIA_TYPES;
}

export interface DecodeOptions {
  table: SchemaTable;
  /** For messages: `must be of type Pod`. */
  expectedKind?: string;
  /** Kind of a body that does not name its own (kubectl's DeleteOptions). */
  defaults?: { apiVersion: string; kind: string };
}

/**
 * Reads a request body in JSON, YAML or Kubernetes' protobuf envelope. An absent content type is
 * JSON. Throws 400 for a body that cannot be read, 413 above `BODY_BYTES_MAX`, 415 for another
 * media type.
 */
export function decodeBody(
  contentType: string | undefined,
  bytes: Uint8Array,
  options: DecodeOptions,
): DecodedBody {
  if (bytes.length > BODY_BYTES_MAX) {
    const message = `Request entity too large: limit is ${BODY_BYTES_MAX}`;
    throw new StatusError('RequestEntityTooLarge', message);
  }
  const encoding = encodingOf(contentType);
  const expected = options.expectedKind ? ` (must be of type ${options.expectedKind})` : '';
  const { value, duplicates } = readable(expected, () =>
    encoding === 'protobuf'
      ? { value: decodeEnvelope(options.table, bytes, options.defaults), duplicates: [] }
      : encoding === 'yaml'
        ? parseYaml(textOf(bytes))
        : parseJson(textOf(bytes)),
  );
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw unrecognized(expected, 'the body is not an object');
  }
  const object = value as Record<string, unknown>;
  const { apiVersion, kind } = object;
  if (apiVersion !== undefined && typeof apiVersion !== 'string') {
    throw unrecognized(expected, 'apiVersion is not a string');
  }
  if (kind !== undefined && typeof kind !== 'string') {
    throw unrecognized(expected, 'kind is not a string');
  }
  return {
    value: object,
    apiVersion: apiVersion ?? options.defaults?.apiVersion ?? '',
    kind: kind ?? options.defaults?.kind ?? '',
    duplicates,
    encoding,
  };
}

function encodingOf(contentType: string | undefined): DecodedBody['encoding'] {
  const mediaType = (contentType ?? '').split(';', 1)[0]?.trim().toLowerCase() ?? '';
  if (mediaType === '' || mediaType === MEDIA_TYPES.json) return 'json';
  if (mediaType === MEDIA_TYPES.yaml) return 'yaml';
  if (mediaType === MEDIA_TYPES.protobuf) return 'protobuf';
  const accepted = Object.values(MEDIA_TYPES).join(', ');
  const message = `the body of the request was in an unknown format - accepted media types include: ${accepted}`;
  throw new StatusError('UnsupportedMediaType', message);
}

function readable(expected: string, read: () => ParsedJson): ParsedJson {
  try {
    return read();
  } catch (cause) {
    if (!(cause instanceof SyntaxError)) throw cause;
    throw unrecognized(expected, cause.message);
  }
}

function unrecognized(expected: string, detail: string): StatusError {
  return badRequest(
    `the object provided is unrecognized${expected}: couldn't get version/kind; parse error: ${detail}`,
  );
}

function textOf(bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new SyntaxError('the body is not valid UTF-8', { cause });
  }
}
