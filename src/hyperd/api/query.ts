import { badRequest } from '../../api/status.ts';
import type { JsonSchema } from '../schema/checks.ts';
import { wholeNumber } from './requests.ts';

/** A query parameter: how it is described, and how it is read. */
export interface QueryParameter<T> {
  schema: JsonSchema;
  description: string;
  isRequired: boolean;
  /** @throws StatusError BadRequest */
  read(query: URLSearchParams, name: string): T;
}

export type QueryParameters = Record<string, QueryParameter<unknown>>;

/** What a handler gets of its parameters. */
export type QueryOf<Q extends QueryParameters> = {
  [name in keyof Q]: Q[name] extends QueryParameter<infer T> ? T : never;
};

/** `true` or `false`; undefined where it is missing. */
export const flag = (description: string): QueryParameter<boolean | undefined> => ({
  schema: { type: 'boolean' },
  description,
  isRequired: false,
  read(query, name) {
    const text = query.get(name);
    if (text === null) return undefined;
    if (text === 'true' || text === 'false') return text === 'true';
    throw badRequest(`Query parameter "${name}" must be true or false, is "${text.slice(0, 100)}"`);
  },
});

/** Undefined where it is missing. */
export const whole = (description: string): QueryParameter<number | undefined> => ({
  schema: { type: 'integer', minimum: 0 },
  description,
  isRequired: false,
  read: (query, name) => wholeNumber(query, name),
});

const VALUES_MAX = 64;
const VALUE_CHARS_MAX = 512;

/** May be given several times. */
export const words = (description: string): QueryParameter<string[]> => ({
  schema: {
    type: 'array',
    items: { type: 'string', maxLength: VALUE_CHARS_MAX },
    maxItems: VALUES_MAX,
  },
  description,
  isRequired: false,
  read(query, name) {
    const values = query.getAll(name);
    if (values.length > VALUES_MAX) {
      const state = `is given ${values.length} times, at most ${VALUES_MAX} are allowed`;
      throw badRequest(`Query parameter "${name}" ${state}`);
    }
    const long = values.find((value) => value.length > VALUE_CHARS_MAX);
    if (long === undefined) return values;
    const state = `has ${long.length} characters, at most ${VALUE_CHARS_MAX} are allowed`;
    throw badRequest(`Query parameter "${name}" ${state}`);
  },
});

export const word = (description: string): QueryParameter<string> => ({
  schema: { type: 'string', maxLength: VALUE_CHARS_MAX },
  description,
  isRequired: true,
  read(query, name) {
    const [value = ''] = words(description).read(query, name);
    if (value === '') throw badRequest(`Query parameter "${name}" is missing`);
    return value;
  },
});

/** @throws StatusError BadRequest, also for a parameter that there is not */
export function readQuery(parameters: QueryParameters, query: URLSearchParams): object {
  const known = Object.keys(parameters);
  for (const name of query.keys()) {
    if (known.includes(name)) continue;
    const choice = known.length > 0 ? `there are: ${known.join(', ')}` : 'there are none here';
    throw badRequest(`Query parameter "${name.slice(0, 100)}" is unknown; ${choice}`);
  }
  return Object.fromEntries(known.map((name) => [name, parameters[name]?.read(query, name)]));
}
