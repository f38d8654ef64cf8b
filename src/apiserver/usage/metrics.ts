import { addTimes, formatDecimal, nothing } from './amounts.ts';
import type { Amounts } from './amounts.ts';
import type { UsageMeter } from './meter.ts';

/** So many tenants have series of their own; the others are one. */
const TENANTS_MAX = 2000;
/** No tenant's name begins so. */
const OTHERS = '_others';

interface Metric {
  name: string;
  type: 'counter' | 'gauge';
  value: (rates: Amounts, total: Amounts) => string;
}

const METRICS: Metric[] = [
  counter('pod_seconds', 'pods', 3),
  counter('cpu_seconds', 'cpu', 6),
  counter('memory_byte_seconds', 'memory', 3),
  counter('storage_byte_seconds', 'storage', 3),
  counter('cpu_used_seconds', 'cpuUsed', 6),
  counter('memory_used_byte_seconds', 'memoryUsed', 3),
  gauge('pods', ({ pods }) => String(pods)),
  gauge('cpu_requested', ({ cpu }) => formatDecimal(cpu, 3)),
  gauge('memory_requested_bytes', ({ memory }) => String(memory)),
  gauge('storage_bytes', ({ storage }) => String(storage)),
];

function counter(name: string, amount: keyof Amounts, decimals: number): Metric {
  const value = (_: Amounts, total: Amounts) => formatDecimal(total[amount], decimals);
  return { name: `hypernetes_tenant_${name}_total`, type: 'counter', value };
}

function gauge(name: string, value: Metric['value']): Metric {
  return { name: `hypernetes_tenant_${name}`, type: 'gauge', value };
}

/** In Prometheus' text format. Counters begin anew when the server does. */
export function renderUsage(meter: UsageMeter): string {
  const byTenant = new Map<string, { rates: Amounts; total: Amounts }>();
  for (const { owner, rates, total } of meter.accounts()) {
    const isKnown = byTenant.has(owner.tenant) || byTenant.size < TENANTS_MAX;
    const tenant = isKnown ? owner.tenant : OTHERS;
    const sums = byTenant.get(tenant) ?? { rates: nothing(), total: nothing() };
    byTenant.set(tenant, sums);
    addTimes(sums.rates, rates, 1n);
    addTimes(sums.total, total, 1n);
  }
  const lines = METRICS.flatMap(({ name, type, value }) => [
    `# TYPE ${name} ${type}`,
    ...[...byTenant].map(
      ([tenant, { rates, total }]) => `${name}{tenant="${tenant}"} ${value(rates, total)}`,
    ),
  ]);
  return `${lines.join('\n')}\n`;
}
