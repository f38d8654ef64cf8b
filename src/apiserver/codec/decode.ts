import type { KubeObject } from '../../api/object.ts';
import { badRequest, StatusError } from '../../api/status.ts';
import { decodeBody } from '../../api/schema/decode.ts';
import type { DecodedBody } from '../../api/schema/decode.ts';
import type { ResourceRow, SchemaTable } from '../../api/schema/schema.ts';
import {
  strictFailure,
  strictProblems,
  structuralFailure,
  structure,
} from '../../api/schema/validate.ts';
import type { RequestContext } from '../context.ts';
import { readBody } from './body.ts';

/** What a body has to be: a resource's kind, or that of an option such as `Scale`. */
export interface ExpectedType {
  group: string;
  version: string;
  kind: string;
  /** Name in the type table. */
  type: string;
  /** Older versions of the same fields, which clients may send as well: `policy/v1beta1`. */
  alsoAs?: readonly string[];
}

const FIELD_VALIDATIONS = new Set(['Strict', 'Warn', 'Ignore']);

/**
 * Reads, decodes and structurally checks the object in a request's body. Unknown and duplicate
 * fields are dropped and, as `fieldValidation` says, refused, warned about or ignored.
 */
export async function readObject(
  context: RequestContext,
  expected: ExpectedType,
): Promise<KubeObject> {
  const { server, exchange } = context;
  const bytes = await readBody(exchange, server.limits, server.clock);
  await server.turns.take(context.user);
  if (bytes.length === 0) throw badRequest(`the body is empty: it has to be a ${expected.kind}`);
  const apiVersion = versionOf(expected);
  const decoded = decodeBody(exchange.headers['content-type'], bytes, {
    table: server.schema,
    expectedKind: expected.kind,
    defaults: { apiVersion, kind: expected.kind },
  });
  checkKind(decoded, expected, apiVersion);
  const object = checkStructure(context, expected, decoded.value, decoded.duplicates);
  context.trace.objectName = object.metadata.name;
  return object;
}

/** The structural half of `readObject`, for objects that a patch has made. */
export function checkStructure(
  context: RequestContext,
  expected: ExpectedType,
  value: Record<string, unknown>,
  duplicates: string[],
): KubeObject {
  const { user, server } = context;
  if (user.tenant !== undefined && hasMoreValues(value, server.limits.objectValuesPerTenant)) {
    const limit = server.limits.objectValuesPerTenant;
    const message = `Request entity too large: an object has at most ${limit} fields and items`;
    throw new StatusError('RequestEntityTooLarge', message);
  }
  const findings = structure(server.schema, expected.type, value);
  const name = findings.value.metadata?.name ?? '';
  const failure = structuralFailure(expected, name, findings);
  if (failure) throw failure;
  const problems = strictProblems(duplicates, findings.unknown);
  if (problems.length > 0) reportProblems(context, expected, problems);
  const apiVersion = versionOf(expected);
  const { metadata } = findings.value;
  return { ...findings.value, apiVersion, kind: expected.kind, metadata: metadata ?? {} };
}

/** Whether a value has more fields and items, at all depths, than this. */
function hasMoreValues(value: unknown, max: number): boolean {
  let count = 0;
  const rest: object[] = [];
  const add = (inner: unknown) => {
    count += 1;
    if (typeof inner === 'object' && inner !== null) rest.push(inner);
  };
  add(value);
  for (let next = rest.pop(); next && count <= max + 1; next = rest.pop()) {
    if (Array.isArray(next)) for (const item of next) add(item);
    else for (const key in next) add((next as Record<string, unknown>)[key]);
  }
  return count > max + 1;
}

function reportProblems(context: RequestContext, expected: ExpectedType, problems: string[]): void {
  const mode = context.exchange.query.get('fieldValidation') || 'Warn';
  if (!FIELD_VALIDATIONS.has(mode)) {
    throw badRequest(
      `the query parameter "fieldValidation" is "${mode}": it has to be Strict, Warn or Ignore`,
    );
  }
  if (mode === 'Strict') {
    const failure = strictFailure(expected as ResourceRow, problems);
    if (failure) throw failure;
  }
  if (mode === 'Warn') context.warnings.push(...problems);
}

function checkKind(decoded: DecodedBody, expected: ExpectedType, apiVersion: string): void {
  const versions = [apiVersion, ...(expected.alsoAs ?? [])];
  if (decoded.kind === expected.kind && versions.includes(decoded.apiVersion)) return;
  if (decoded.kind === expected.kind && decoded.apiVersion) {
    throw badRequest(
      `the API version in the data (${decoded.apiVersion}) does not match the expected API ` +
        `version (${apiVersion})`,
    );
  }
  const [kind, version] = [decoded.kind, decoded.apiVersion].map((text) => JSON.stringify(text));
  const found = `kind ${kind} of version ${version}`;
  throw badRequest(
    `the object provided is unrecognized (must be of type ${expected.kind}): ${found}`,
  );
}

function versionOf(expected: ExpectedType): string {
  return expected.group ? `${expected.group}/${expected.version}` : expected.version;
}

/** The type of an object that is no resource of its own. It has to be in the table. */
export function optionType(
  schema: SchemaTable,
  group: string,
  version: string,
  kind: string,
): ExpectedType {
  const expected = { group, version, kind };
  const type = schema.typeOfKind(versionOf({ ...expected, type: '' }), kind);
  if (!type) throw new RangeError(`cannot read a ${kind}: its type is not in the table`);
  return { ...expected, type };
}
