import { Option } from 'commander';
import type { Command } from 'commander';
import { print } from '../output.ts';
import { table } from '../table.ts';

export interface ListOptions {
  format?: 'table' | 'json';
}

/** Of every command that tells something. */
export function withFormat(command: Command): Command {
  const option = new Option('--format <how>', 'table for people, json for programs');
  return command.addOption(option.choices(['table', 'json']).default('table'));
}

/** One table, or the values that it is made of. */
export function printList<T>(
  { format }: ListOptions,
  values: T[],
  header: string[],
  row: (value: T) => string[],
): void {
  print(format === 'json', values, () => table(header, values.map(row)));
}

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];

/** `12.3 MiB` */
export function bytes(count: number): string {
  let value = count;
  let unit = 0;
  for (; value >= 1024 && unit < UNITS.length - 1; unit++) value /= 1024;
  return `${unit === 0 ? value : value.toFixed(1)} ${UNITS[unit]}`;
}

/** What a guest says is shown as text: it must not move the cursor of a terminal. */
export function plain(text: string): string {
  return text.replace(/[\x00-\x09\x0b-\x1f\x7f-\x9f]/g, '?');
}
