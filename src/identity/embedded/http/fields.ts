import { badRequest } from '../errors.ts';
import { checkName } from '../grants.ts';
import { LIMITS } from '../settings.ts';

/** What a field of a body may hold. */
export type FieldType = 'string' | 'boolean' | 'name' | 'id' | 'text' | 'array' | 'object' | 'url';

export interface FieldRule {
  type: FieldType;
  required?: boolean;
  /** `null` stands for absent, or takes a value away. */
  nullable?: boolean;
  lengthMax?: number;
}

export type FieldRules = Record<string, FieldRule>;

const URL_LENGTH_MAX = 2048;
const ITEMS_MAX = 512;

const LENGTH_MAX: Partial<Record<FieldType, number>> = {
  id: LIMITS.nameLength,
  text: LIMITS.descriptionLength,
  url: URL_LENGTH_MAX,
};

const JSON_TYPES: Record<FieldType, string> = {
  string: 'string',
  name: 'string',
  id: 'string',
  text: 'string',
  url: 'string',
  boolean: 'boolean',
  array: 'array',
  object: 'object',
};

function jsonType(value: unknown): string {
  if (value === null) return 'null';
  return Array.isArray(value) ? 'array' : typeof value;
}

const invalid = (field: string, why: string) =>
  badRequest(`Invalid input for field '${field}': ${why}.`);

/**
 * An object of known fields, checked; unknown ones are refused by name.
 * @param at where it stands in the body, for messages
 * @throws KeystoneError 400 that names the field
 */
export function readFields(value: unknown, at: string, rules: FieldRules): Record<string, unknown> {
  if (jsonType(value) !== 'object') {
    throw invalid(at, value === undefined ? 'it is required' : 'it is not an object');
  }
  const object = value as Record<string, unknown>;
  const read: Record<string, unknown> = {};
  for (const name of Object.keys(object)) {
    if (!Object.hasOwn(rules, name)) {
      const shown = JSON.stringify(name.slice(0, LIMITS.nameLength));
      throw badRequest(
        `Additional properties are not allowed in '${at}': ${shown} was unexpected.`,
      );
    }
  }
  for (const [name, rule] of Object.entries(rules)) {
    const field = `${at}.${name}`;
    const given = object[name];
    if (given === undefined) {
      if (rule.required) throw invalid(field, 'it is required');
      continue;
    }
    if (given === null && rule.nullable) {
      read[name] = null;
      continue;
    }
    checkValue(field, given, rule);
    read[name] = given;
  }
  return read;
}

function checkValue(field: string, value: unknown, rule: FieldRule): void {
  const wanted = JSON_TYPES[rule.type];
  if (jsonType(value) !== wanted) {
    throw invalid(field, `it is of type '${jsonType(value)}', not '${wanted}'`);
  }
  if (rule.type === 'name') checkName(field, value as string, rule.lengthMax);
  const lengthMax = rule.lengthMax ?? LENGTH_MAX[rule.type];
  if (typeof value === 'string' && lengthMax !== undefined && value.length > lengthMax) {
    throw invalid(field, `it is longer than ${lengthMax} characters`);
  }
  if (rule.type === 'id' && value === '') throw invalid(field, 'it is empty');
  if (Array.isArray(value) && value.length > ITEMS_MAX) {
    throw invalid(field, `it has more than ${ITEMS_MAX} items`);
  }
}

/** The one object in a body: `{"project": {…}}`. */
export function readBody(body: unknown, name: string, rules: FieldRules): Record<string, unknown> {
  const outer = readFields(body, 'body', { [name]: { type: 'object', required: true } });
  return readFields(outer[name], name, rules);
}

/** For a PATCH: the same fields, none required. */
export function optional(rules: FieldRules): FieldRules {
  return Object.fromEntries(
    Object.entries(rules).map(([name, rule]) => [name, { ...rule, required: false }]),
  );
}

/** Every string of an array. */
export function readStrings(value: unknown, at: string, lengthMax: number): string[] {
  if (!Array.isArray(value)) throw invalid(at, 'it is not an array');
  return value.map((item: unknown, i) => {
    checkValue(`${at}[${i}]`, item, { type: 'string', lengthMax });
    return item as string;
  });
}
