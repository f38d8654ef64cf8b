/**
 * Label and field selectors: the query grammar (`app=web,tier in (a,b),!canary`) and the object
 * form (`matchLabels`, `matchExpressions`). Errors are 400s in Kubernetes' words.
 */
import { labelValue, qualifiedName } from './names.ts';
import { badRequest } from './status.ts';

export type LabelOperator = 'exists' | '!' | '=' | '!=' | 'in' | 'notin' | 'gt' | 'lt';

export interface LabelRequirement {
  key: string;
  operator: LabelOperator;
  values: string[];
}

export interface LabelSelectorObject {
  matchLabels?: Record<string, string>;
  matchExpressions?: { key: string; operator: string; values?: string[] }[];
}

export interface FieldRequirement {
  field: string;
  operator: '=' | '!=';
  value: string;
}

/** A selector longer than this costs more to match than any client needs. */
const SELECTOR_LENGTH_MAX = 16 * 1024;

type Labels = Record<string, string> | undefined;

/** Reads a label selector from a query. Empty text selects everything. Throws 400. */
export function parseLabelSelector(text: string): LabelRequirement[] {
  if (text.length > SELECTOR_LENGTH_MAX) {
    throw badRequest(`unable to parse requirement: selector exceeds ${SELECTOR_LENGTH_MAX} bytes`);
  }
  const tokens = tokenize(text);
  const requirements: LabelRequirement[] = [];
  let at = 0;
  while (at < tokens.length) {
    const [requirement, next] = readRequirement(tokens, at);
    checkRequirement(requirement);
    requirements.push(requirement);
    if (next >= tokens.length) break;
    if (tokens[next] !== ',') throw unexpected(tokens[next], "',' or end of string");
    at = next + 1;
    if (at >= tokens.length) throw unexpected(undefined, "identifier after ','");
  }
  return requirements;
}

export function matchesLabels(requirements: readonly LabelRequirement[], labels: Labels): boolean {
  return requirements.every((requirement) => matchesRequirement(requirement, labels));
}

/** An absent selector selects nothing, an empty one everything. */
export function matchesLabelSelector(
  selector: LabelSelectorObject | undefined,
  labels: Labels,
): boolean {
  return selector !== undefined && matchesLabels(requirementsOf(selector), labels);
}

/** The requirements of an object-form selector; operators it does not know match nothing. */
function requirementsOf(selector: LabelSelectorObject): LabelRequirement[] {
  const equal = Object.entries(selector.matchLabels ?? {}).map(
    ([key, value]): LabelRequirement => ({ key, operator: '=', values: [value] }),
  );
  const expressions = (selector.matchExpressions ?? []).map(
    ({ key, operator, values }): LabelRequirement => ({
      key,
      operator: OBJECT_OPERATORS[operator] ?? 'in',
      values: OBJECT_OPERATORS[operator] ? (values ?? []) : [],
    }),
  );
  return [...equal, ...expressions];
}

/** `app=web,tier in (a,b),!canary`, keys sorted, as Kubernetes prints selectors. */
export function formatLabelSelector(selector: LabelSelectorObject | undefined): string {
  if (!selector) return '<none>';
  const requirements = requirementsOf(selector);
  if (requirements.length === 0) return '<none>';
  return formatRequirements(requirements);
}

function formatRequirements(requirements: readonly LabelRequirement[]): string {
  return [...requirements]
    .sort((a, b) => (a.key < b.key ? -1 : a.key > b.key ? 1 : 0))
    .map(formatRequirement)
    .join(',');
}

/** Reads a field selector: `metadata.name=a,status.phase!=Running`. Throws 400. */
export function parseFieldSelector(text: string): FieldRequirement[] {
  if (text.length > SELECTOR_LENGTH_MAX) {
    throw badRequest(`invalid selector: exceeds ${SELECTOR_LENGTH_MAX} bytes`);
  }
  const requirements: FieldRequirement[] = [];
  for (const term of splitTerms(text)) {
    if (term === '') continue;
    const match = /^((?:[^=!\\]|\\.|!(?!=))*)(!=|==|=)([^]*)$/.exec(term);
    if (!match) throw badRequest(`invalid selector: '${text}'; can't understand '${term}'`);
    const [, field = '', operator, value = ''] = match;
    requirements.push({ field, operator: operator === '!=' ? '!=' : '=', value: unescape(value) });
  }
  return requirements;
}

const OBJECT_OPERATORS: Record<string, LabelOperator> = {
  In: 'in',
  NotIn: 'notin',
  Exists: 'exists',
  DoesNotExist: '!',
  Gt: 'gt',
  Lt: 'lt',
};

function matchesRequirement({ key, operator, values }: LabelRequirement, labels: Labels): boolean {
  const value = labels !== undefined && Object.hasOwn(labels, key) ? labels[key] : undefined;
  switch (operator) {
    case 'exists':
      return value !== undefined;
    case '!':
      return value === undefined;
    case '=':
    case 'in':
      return value !== undefined && values.includes(value);
    case '!=':
    case 'notin':
      return value === undefined || !values.includes(value);
    default:
      return value !== undefined && compareNumbers(value, values[0], operator);
  }
}

const INTEGER = /^[+-]?\d{1,19}$/;

function compareNumbers(value: string, limit: string | undefined, operator: 'gt' | 'lt'): boolean {
  if (limit === undefined || !INTEGER.test(value) || !INTEGER.test(limit)) return false;
  const [left, right] = [BigInt(value.replace('+', '')), BigInt(limit.replace('+', ''))];
  return operator === 'gt' ? left > right : left < right;
}

/** Punctuation by itself, words in between; `!=` and `==` are one token each. */
function tokenize(text: string): string[] {
  return text.match(/!=|==|[=!<>(),]|[^\s=!<>(),]+/g) ?? [];
}

const PUNCTUATION = new Set(['!=', '==', '=', '!', '<', '>', '(', ')', ',']);

function readRequirement(tokens: string[], start: number): [LabelRequirement, number] {
  const negated = tokens[start] === '!';
  const key = tokens[negated ? start + 1 : start];
  if (key === undefined || PUNCTUATION.has(key)) throw unexpected(key, "'!', identifier");
  const at = negated ? start + 2 : start + 1;
  if (negated) return [{ key, operator: '!', values: [] }, at];
  const token = tokens[at];
  if (token === undefined || token === ',') return [{ key, operator: 'exists', values: [] }, at];
  if (token === 'in' || token === 'notin') {
    const [values, next] = readSet(tokens, at + 1);
    return [{ key, operator: token, values }, next];
  }
  const operator = QUERY_OPERATORS[token];
  if (!operator) throw unexpected(token, 'in, notin, =, ==, !=, gt, lt');
  const value = tokens[at + 1];
  if (value === undefined || value === ',') return [{ key, operator, values: [''] }, at + 1];
  if (PUNCTUATION.has(value)) throw unexpected(value, 'identifier');
  return [{ key, operator, values: [value] }, at + 2];
}

const QUERY_OPERATORS: Record<string, LabelOperator> = {
  '=': '=',
  '==': '=',
  '!=': '!=',
  '>': 'gt',
  '<': 'lt',
};

function readSet(tokens: string[], start: number): [string[], number] {
  if (tokens[start] !== '(') throw unexpected(tokens[start], "'('");
  const values: string[] = [];
  let at = start + 1;
  let wantValue = true;
  for (;;) {
    const token = tokens[at];
    at += 1;
    if (token === ')') {
      if (wantValue) values.push('');
      return [[...new Set(values)], at];
    }
    if (token === ',') {
      if (wantValue) values.push('');
      wantValue = true;
    } else if (token !== undefined && !PUNCTUATION.has(token) && wantValue) {
      values.push(token);
      wantValue = false;
    } else throw unexpected(token, "',', or ')'");
  }
}

function unexpected(found: string | undefined, expected: string) {
  return badRequest(`unable to parse requirement: found '${found ?? ''}', expected: ${expected}`);
}

function checkRequirement({ key, operator, values }: LabelRequirement): void {
  const keyProblem = qualifiedName(key)[0];
  if (keyProblem) {
    throw badRequest(`unable to parse requirement: key: Invalid value: "${key}": ${keyProblem}`);
  }
  values.forEach((value, index) => {
    const numeric = operator === 'gt' || operator === 'lt';
    const problem =
      numeric && !INTEGER.test(value)
        ? `for 'Gt', 'Lt' operators, the value must be an integer`
        : labelValue(value)[0];
    if (!problem) return;
    const where = `values[${index}][${key}]`;
    throw badRequest(
      `unable to parse requirement: ${where}: Invalid value: "${value}": ${problem}`,
    );
  });
}

function formatRequirement({ key, operator, values }: LabelRequirement): string {
  if (operator === 'exists') return key;
  if (operator === '!') return `!${key}`;
  if (operator === 'in' || operator === 'notin') {
    return `${key} ${operator} (${[...values].sort().join(',')})`;
  }
  const sign = operator === 'gt' ? '>' : operator === 'lt' ? '<' : operator;
  return `${key}${sign}${values[0] ?? ''}`;
}

/** Splits at commas that no backslash escapes. */
function splitTerms(text: string): string[] {
  return text.match(/(?:[^,\\]|\\[^])+/g) ?? [];
}

function unescape(value: string): string {
  return value.replace(/\\([\\,=])/g, '$1');
}
