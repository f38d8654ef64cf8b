/**
 * Checks of values that come from outside. Each one says what is wrong in words, and what it allows
 * as a JSON Schema (2020-12): the API's description is made of the same rules as its answers.
 */
export interface Check {
  /** What is wrong, to follow the name of the field; undefined where nothing is. */
  (value: unknown): string | undefined;
  readonly schema: JsonSchema;
  readonly isOptional?: boolean;
}

export type JsonSchema = Record<string, unknown>;

/** A check of its own kind, with the schema that says the same. */
export function described(
  schema: JsonSchema,
  problem: (value: unknown) => string | undefined,
): Check {
  return Object.assign((value: unknown) => problem(value), { schema });
}

export const text = (lengthMax = 4096): Check =>
  described({ type: 'string', maxLength: lengthMax }, (value) =>
    typeof value === 'string' && value.length <= lengthMax && !value.includes('\0')
      ? undefined
      : `must be a string of at most ${lengthMax} characters without NUL`,
  );

export const matching = (pattern: RegExp): Check =>
  described({ type: 'string', pattern: pattern.source }, (value) =>
    typeof value === 'string' && pattern.test(value)
      ? undefined
      : `must match ${String(pattern)}, is ${shown(value)}`,
  );

export const integer = (min: number, max: number): Check =>
  described({ type: 'integer', minimum: min, maximum: max }, (value) =>
    Number.isInteger(value) && (value as number) >= min && (value as number) <= max
      ? undefined
      : `must be a whole number from ${min} to ${max}, is ${shown(value)}`,
  );

export const listOf = (item: Check, countMax: number): Check =>
  described({ type: 'array', items: item.schema, maxItems: countMax }, (value) => {
    if (!Array.isArray(value)) return 'must be a list';
    if (value.length > countMax) return `must have at most ${countMax} items, has ${value.length}`;
    for (const [index, element] of value.entries()) {
      const problem = item(element);
      if (problem) return `item ${index} ${problem}`;
    }
    return undefined;
  });

/** The fields of a type, each of them once: the compiler knows them. */
export type Fields<T> = Record<keyof Required<T>, Check>;

export const shape = (fields: Record<string, Check>): Check =>
  described(shapeSchema(fields), (value) => {
    if (typeof value !== 'object' || value === null) return 'must be an object';
    for (const [name, check] of Object.entries(fields)) {
      const problem = check((value as Record<string, unknown>)[name]);
      if (problem) return `${name} ${problem}`;
    }
    return undefined;
  });

function shapeSchema(fields: Record<string, Check>): JsonSchema {
  const entries = Object.entries(fields);
  const properties = Object.fromEntries(entries.map(([name, { schema }]) => [name, schema]));
  const required = entries.filter(([, { isOptional }]) => !isOptional).map(([name]) => name);
  return { type: 'object', properties, ...(required.length > 0 ? { required } : {}) };
}

/** May be missing. */
export const optional = (check: Check): Check =>
  Object.assign(
    described(check.schema, (value) =>
      value === undefined || value === null ? undefined : check(value),
    ),
    { isOptional: true },
  );

/** May be null, and may be missing as well. */
export const nullable = (check: Check): Check =>
  described({ anyOf: [check.schema, { type: 'null' }] }, (value) =>
    value === undefined || value === null ? undefined : check(value),
  );

export const oneOf = (...values: string[]): Check =>
  described({ type: 'string', enum: values }, (value) =>
    values.includes(value as string)
      ? undefined
      : `must be one of ${values.join(', ')}, is ${shown(value)}`,
  );

export const boolean: Check = described({ type: 'boolean' }, (value) =>
  typeof value === 'boolean' ? undefined : 'must be true or false',
);

/** Milliseconds, also parts of one; 0 is none. */
export const duration: Check = described({ type: 'number', minimum: 0 }, (value) =>
  typeof value === 'number' && value >= 0 && Number.isFinite(value)
    ? undefined
    : `must be a number of milliseconds, is ${shown(value)}`,
);

export const textMap: Check = described(
  { type: 'object', additionalProperties: { type: 'string', maxLength: 65536 } },
  (value) => shape({})(value) ?? listOf(text(65536), 512)(Object.values(value as object)),
);

/** A type that the description knows by name, where it is used by others. */
export const named = (name: string, check: Check): Check =>
  described({ $ref: `#/components/schemas/${name}` }, check);

/** The same of what is answered, which nobody checks. */
export const answered = (name: string): Check =>
  described({ $ref: `#/components/schemas/${name}` }, () => undefined);

function shown(value: unknown): string | undefined {
  return JSON.stringify(value)?.slice(0, 100);
}
