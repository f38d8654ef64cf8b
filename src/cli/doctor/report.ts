import type { Finding } from './check.ts';

export interface Report {
  /** Whether pods can run here. */
  able: boolean;
  findings: ({ name: string } & Finding)[];
}

const MARKS: Record<Finding['verdict'], string> = {
  good: 'ok',
  limit: 'limit',
  missing: 'MISSING',
};

export function renderReport(report: Report): string {
  const width = Math.max(...report.findings.map(({ name }) => name.length));
  const lines = report.findings.flatMap(({ name, verdict, detail, consequence }) => {
    const first = `${MARKS[verdict].padEnd(8)} ${name.padEnd(width)}  ${detail}`;
    return consequence ? [first, `${' '.repeat(8 + 1 + width)}  ${consequence}`] : [first];
  });
  const verdict = report.able
    ? 'Pods can run on this machine.'
    : 'Pods cannot run on this machine.';
  return `${[...lines, '', verdict].join('\n')}\n`;
}
