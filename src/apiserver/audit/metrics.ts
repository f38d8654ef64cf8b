import type { AuditLog } from './log.ts';

/** In Prometheus' text format. */
export function renderAudit(log: AuditLog): string {
  const { recordedCount, lostCount, pendingBytes } = log.stats();
  const series: [string, string, number][] = [
    ['hypernetes_audit_events_total', 'counter', recordedCount],
    ['hypernetes_audit_events_lost_total', 'counter', lostCount],
    ['hypernetes_audit_pending_bytes', 'gauge', pendingBytes],
  ];
  return series.map(([name, type, value]) => `# TYPE ${name} ${type}\n${name} ${value}\n`).join('');
}
