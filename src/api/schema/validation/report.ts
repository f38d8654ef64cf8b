import type { StatusCause } from '../../status.ts';

export type Fields = Record<string, unknown>;
type Segment = string | number;

/** Errors told of one object. A body can hold thousands; clients show a handful. */
const CAUSES_MAX = 100;
const SHOWN_VALUE_MAX = 1024;

/**
 * Collects what is wrong with one object, in the words of Kubernetes' `field.Error`. `at` gives a
 * report for a part: paths are relative to it (`report.at('ports', 0)`).
 */
export class Report {
  readonly causes: StatusCause[];
  readonly #path: string;

  constructor(path = '', causes: StatusCause[] = []) {
    this.#path = path;
    this.causes = causes;
  }

  at(...segments: Segment[]): Report {
    return new Report(join(this.#path, segments), this.causes);
  }

  /** Below a key of a map: `limits[cpu]`. */
  key(key: string): Report {
    return new Report(`${this.#path}[${key}]`, this.causes);
  }

  invalid(value: unknown, detail: string): void {
    this.#add('FieldValueInvalid', `Invalid value: ${shown(value)}: ${detail}`);
  }

  /** One error for each problem that a grammar found. */
  invalidAll(value: unknown, details: readonly string[]): void {
    for (const detail of details) this.invalid(value, detail);
  }

  required(detail = ''): void {
    this.#add('FieldValueRequired', detail === '' ? 'Required value' : `Required value: ${detail}`);
  }

  forbidden(detail: string): void {
    this.#add('FieldValueForbidden', `Forbidden: ${detail}`);
  }

  duplicate(value: unknown): void {
    this.#add('FieldValueDuplicate', `Duplicate value: ${shown(value)}`);
  }

  notFound(value: unknown): void {
    this.#add('FieldValueNotFound', `Not found: ${shown(value)}`);
  }

  notSupported(value: unknown, supported: readonly string[]): void {
    const list = supported.map((entry) => JSON.stringify(entry)).join(', ');
    const message = `Unsupported value: ${shown(value)}: supported values: ${list}`;
    this.#add('FieldValueNotSupported', message);
  }

  tooLong(max: number): void {
    this.#add('FieldValueTooLong', `Too long: may not be more than ${max} bytes`);
  }

  tooMany(count: number, max: number): void {
    this.#add('FieldValueTooMany', `Too many: ${count}: must have at most ${max} items`);
  }

  #add(reason: string, message: string): void {
    if (this.causes.length >= CAUSES_MAX) return;
    this.causes.push({ reason, message, field: this.#path });
  }
}

function join(path: string, segments: readonly Segment[]): string {
  let joined = path;
  for (const segment of segments) {
    if (typeof segment === 'number') joined += `[${segment}]`;
    else joined += joined === '' ? segment : `.${segment}`;
  }
  return joined;
}

function shown(value: unknown): string {
  const text = JSON.stringify(value) ?? '""';
  return text.length > SHOWN_VALUE_MAX ? `${text.slice(0, SHOWN_VALUE_MAX)}...` : text;
}

export function fields(value: unknown): Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? (value as Fields)
    : {};
}

export function items(value: unknown): Fields[] {
  return Array.isArray(value) ? value.map(fields) : [];
}

export function texts(value: unknown): string[] {
  return Array.isArray(value) ? value.map(String) : [];
}

export function text(value: unknown): string {
  return typeof value === 'string' ? value : '';
}
