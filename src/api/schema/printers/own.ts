import { age, name, NONE, number, record, text } from './cells.ts';
import type { Fields, Printer } from './cells.ts';

/** `pods: 3/10, requests.cpu: 2/8`, by name. */
function quotaText(tenant: Fields): string {
  const used = record(tenant, 'status.quota.used');
  const limits = Object.entries(record(tenant, 'spec.quota.hard')).sort(([a], [b]) =>
    a < b ? -1 : 1,
  );
  if (limits.length === 0) return NONE;
  return limits
    .map(([limit, hard]) => `${limit}: ${String(used[limit] ?? '0')}/${hard}`)
    .join(', ');
}

const printTenant: Printer = (tenant, nowMs) => [
  name(tenant),
  text(tenant, 'status.phase', 'Pending'),
  number(tenant, 'status.namespaceCount'),
  age(tenant, nowMs),
  text(tenant, 'spec.parent', NONE),
  text(tenant, 'status.projectID', NONE),
  quotaText(tenant),
];

/** Printers of `hypernetes.io`, by `resource.group`. */
export const OWN_PRINTERS: Record<string, Printer> = {
  'tenants.hypernetes.io': printTenant,
};
