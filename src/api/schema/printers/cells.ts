import { humanDuration } from '../../time.ts';
import { formatLabelSelector } from '../../selectors.ts';
import type { LabelSelectorObject } from '../../selectors.ts';

export type Fields = Record<string, unknown>;
/** Cells of one object, in the order of the row's columns. `nowMs` is the time of the answer. */
export type Printer = (object: Fields, nowMs: number) => unknown[];

export const NONE = '<none>';
export const UNSET = '<unset>';
export const UNKNOWN = '<unknown>';

/** Reads a dotted path; undefined as soon as a part is missing. */
export function get(value: unknown, path: string): unknown {
  let current = value;
  for (const name of path.split('.')) {
    if (typeof current !== 'object' || current === null) return undefined;
    current = Object.hasOwn(current, name) ? (current as Fields)[name] : undefined;
  }
  return current;
}

export function text(value: unknown, path: string, absent = ''): string {
  const found = get(value, path);
  return found === undefined || found === null || found === '' ? absent : String(found);
}

export function number(value: unknown, path: string): number {
  const found = get(value, path);
  return typeof found === 'number' ? found : 0;
}

export function list(value: unknown, path: string): Fields[] {
  const found = get(value, path);
  return Array.isArray(found) ? (found as Fields[]) : [];
}

export function strings(value: unknown, path: string): string[] {
  const found = get(value, path);
  return Array.isArray(found) ? found.map(String) : [];
}

export function record(value: unknown, path: string): Fields {
  const found = get(value, path);
  return typeof found === 'object' && found !== null ? (found as Fields) : {};
}

export function name(object: Fields): string {
  return text(object, 'metadata.name');
}

/** How long ago, as kubectl shows it. */
export function since(timestamp: unknown, nowMs: number, absent = UNKNOWN): string {
  const ms = typeof timestamp === 'string' ? Date.parse(timestamp) : Number.NaN;
  return Number.isNaN(ms) ? absent : humanDuration(nowMs - ms);
}

export function age(object: Fields, nowMs: number): string {
  return since(get(object, 'metadata.creationTimestamp'), nowMs);
}

/** `a=1,b=2`, keys sorted. */
export function labelsText(labels: unknown): string {
  const entries = Object.entries((labels ?? {}) as Record<string, unknown>).sort();
  return entries.length === 0
    ? NONE
    : entries.map(([key, value]) => `${key}=${String(value)}`).join(',');
}

export function selectorText(selector: unknown): string {
  return formatLabelSelector(selector as LabelSelectorObject | undefined);
}

export function containerNames(podSpec: unknown): string {
  return list(podSpec, 'containers')
    .map((container) => text(container, 'name'))
    .join(',');
}

export function containerImages(podSpec: unknown): string {
  return list(podSpec, 'containers')
    .map((container) => text(container, 'image'))
    .join(',');
}

/** Containers, images and selector, the wide columns of every workload. */
export function workloadCells(object: Fields): string[] {
  const podSpec = get(object, 'spec.template.spec');
  return [
    containerNames(podSpec),
    containerImages(podSpec),
    selectorText(get(object, 'spec.selector')),
  ];
}

/** The condition of a type, wherever the kind keeps its conditions. */
export function condition(object: Fields, type: string): Fields | undefined {
  return list(object, 'status.conditions').find((entry) => entry['type'] === type);
}
