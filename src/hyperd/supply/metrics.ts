import type { VmSupply } from './supply.ts';

/**
 * Where VMs come from, in Prometheus' text format. Labels name owners, so this is for whoever may see
 * all of them. Counters begin anew when the daemon does.
 */
export function renderSupplyMetrics(
  supply: Pick<VmSupply, 'pools' | 'templates' | 'counts'>,
): string {
  const { starts, fallbacks, templateBuilds, templateFailures } = supply.counts();
  const byOrigin = Object.entries(starts).map(([origin, count]) => row({ origin }, count));
  const families: Family[] = [
    { name: 'hyperd_vm_starts_total', type: 'counter', rows: byOrigin },
    counter('hyperd_template_fallbacks_total', fallbacks),
    counter('hyperd_template_builds_total', templateBuilds),
    counter('hyperd_template_build_failures_total', templateFailures),
    ...templateFamilies(supply),
    ...POOL_FAMILIES.map(({ name, type, field }) => ({
      ...{ name, type },
      rows: sumRows(
        supply.pools().map((pool) => {
          const { owner, cpuCount, memoryMib, network } = pool;
          return row({ owner, cpus: cpuCount, memory_mib: memoryMib, network }, pool[field]);
        }),
      ),
    })),
  ];
  return `${families.flatMap(linesOf).join('\n')}\n`;
}

interface Row {
  labels: string;
  value: number;
}

interface Family {
  name: string;
  type: 'counter' | 'gauge';
  rows: Row[];
}

type PoolNumber = 'waiting' | 'making' | 'wanted' | 'hits' | 'misses';

const POOL_FAMILIES: { name: string; type: Family['type']; field: PoolNumber }[] = [
  { name: 'hyperd_pool_waiting_vms', type: 'gauge', field: 'waiting' },
  { name: 'hyperd_pool_making_vms', type: 'gauge', field: 'making' },
  { name: 'hyperd_pool_wanted_vms', type: 'gauge', field: 'wanted' },
  { name: 'hyperd_pool_hits_total', type: 'counter', field: 'hits' },
  { name: 'hyperd_pool_misses_total', type: 'counter', field: 'misses' },
];

function templateFamilies({ templates }: Pick<VmSupply, 'templates'>): Family[] {
  const all = templates();
  const count = all.map(({ owner, phase }) => row({ owner, phase }, 1));
  const bytes = all.map(({ owner, diskBytes }) => row({ owner }, diskBytes));
  return [
    { name: 'hyperd_templates', type: 'gauge', rows: sumRows(count) },
    { name: 'hyperd_template_bytes', type: 'gauge', rows: sumRows(bytes) },
  ];
}

function counter(name: string, value: number): Family {
  return { name, type: 'counter', rows: [{ labels: '', value }] };
}

function row(labels: Record<string, string | number>, value: number): Row {
  const parts = Object.entries(labels).map(([name, text]) => `${name}="${escapeLabel(text)}"`);
  return { labels: `{${parts.join(',')}}`, value };
}

function escapeLabel(value: string | number): string {
  return String(value).replace(/[\\"]/g, '\\$&').replaceAll('\n', '\\n');
}

/** Kinds that differ in what is no label are one series. */
function sumRows(rows: Row[]): Row[] {
  const sums = new Map<string, number>();
  for (const { labels, value } of rows) sums.set(labels, (sums.get(labels) ?? 0) + value);
  return [...sums].map(([labels, value]) => ({ labels, value }));
}

function linesOf({ name, type, rows }: Family): string[] {
  return [
    `# TYPE ${name} ${type}`,
    ...rows.map(({ labels, value }) => `${name}${labels} ${value}`),
  ];
}
