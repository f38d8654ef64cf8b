import assert from 'node:assert/strict';
import { test } from 'node:test';
import { renderSupplyMetrics } from './metrics.ts';

const POOL = {
  ...{ owner: 'a"b\\c', cpuCount: 1, memoryMib: 192, network: 'default' },
  ...{ waiting: 1, making: 0, wanted: 2, hits: 3, misses: 4 },
};
const TEMPLATE = {
  ...{
    id: 't',
    owner: 'a',
    cpuCount: 1,
    memoryMib: 192,
    kernelPath: '/k',
    phase: 'ready' as const,
  },
  ...{ diskBytes: 100, createdAtMs: 1, useCount: 5, message: '' },
};

test('kinds that differ in nothing that a label says are one series', () => {
  const text = renderSupplyMetrics({
    pools: () => [POOL, POOL, { ...POOL, owner: 'b' }],
    templates: () => [TEMPLATE, TEMPLATE, { ...TEMPLATE, phase: 'resting', diskBytes: 0 }],
    counts: () => ({
      starts: { warm: 1, template: 2, cold: 3 },
      ...{ fallbacks: 4, templateBuilds: 5, templateFailures: 6 },
    }),
  });
  const lines = text.trimEnd().split('\n');
  const labels = 'owner="a\\"b\\\\c",cpus="1",memory_mib="192",network="default"';
  for (const line of [
    '# TYPE hyperd_vm_starts_total counter',
    'hyperd_vm_starts_total{origin="template"} 2',
    'hyperd_template_fallbacks_total 4',
    'hyperd_template_builds_total 5',
    'hyperd_template_build_failures_total 6',
    'hyperd_templates{owner="a",phase="ready"} 2',
    'hyperd_template_bytes{owner="a"} 200',
    `hyperd_pool_waiting_vms{${labels}} 2`,
    `hyperd_pool_misses_total{${labels}} 8`,
  ]) {
    assert.ok(lines.includes(line), line);
  }
  const series = lines.map((line) => line.slice(0, line.lastIndexOf(' ')));
  assert.equal(new Set(series).size, series.length, 'each series once');
});
