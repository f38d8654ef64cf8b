import { cpus, loadavg, totalmem } from 'node:os';
import { table } from '../src/cli/table.ts';

/** What a benchmark prints. Times are in milliseconds unless the unit says otherwise. */
export interface BenchReport {
  name: string;
  machine: {
    processor: string;
    cpuCount: number;
    memoryGib: number;
    accelerator: string;
    /** What pods booted, where it matters. */
    kernel?: string;
  };
  series: Series[];
  /** What has to be known to read the numbers. */
  notes: string[];
}

export interface Series {
  name: string;
  unit: string;
  n: number;
  p50: number;
  p99: number;
  min: number;
  max: number;
}

export function series(name: string, samples: number[], unit = 'ms'): Series {
  const sorted = [...samples].sort((a, b) => a - b);
  return {
    name,
    unit,
    n: sorted.length,
    p50: percentile(sorted, 0.5),
    p99: percentile(sorted, 0.99),
    min: sorted[0] ?? Number.NaN,
    max: sorted.at(-1) ?? Number.NaN,
  };
}

/** Nearest rank: with few samples the 99th is the largest. */
function percentile(sorted: number[], share: number): number {
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? Number.NaN;
}

export function describeMachine(accelerator: string, kernel?: string): BenchReport['machine'] {
  return {
    processor: cpus()[0]?.model.trim() ?? 'unknown',
    cpuCount: cpus().length,
    memoryGib: Math.round(totalmem() / 2 ** 30),
    accelerator,
    ...(kernel === undefined ? {} : { kernel }),
  };
}

/** How busy the machine is, which others may share: to be asked before the benchmark makes it so. */
export function loadNote(): string {
  return `Load of the machine before: ${(loadavg()[0] ?? 0).toFixed(1)}.`;
}

export function renderReport(report: BenchReport): string {
  const { processor, cpuCount, memoryGib, accelerator, kernel } = report.machine;
  const rows = report.series.map(({ name, unit, n, p50, p99, min, max }) => [
    name,
    String(n),
    ...[p50, p99, min, max].map((value) => format(value)),
    unit,
  ]);
  const booted = kernel === undefined ? '' : `, kernel ${kernel}`;
  const head = `${report.name}: ${cpuCount} × ${processor}, ${memoryGib} GiB, accelerator ${accelerator}${booted}\n\n`;
  const notes = report.notes.map((note) => `${note}\n`).join('');
  return `${head}${table(['SERIES', 'N', 'P50', 'P99', 'MIN', 'MAX', 'UNIT'], rows)}\n${notes}`;
}

function format(value: number): string {
  if (!Number.isFinite(value)) return '-';
  return value >= 100 ? value.toFixed(0) : value.toFixed(1);
}
