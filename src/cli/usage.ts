import { withCluster } from './access.ts';
import type { AccessFlags, Place } from './access.ts';
import { UsageError } from './errors.ts';
import { reviewSelf } from './login/reviewed.ts';
import { RefusedError, readText, readWhen } from './read.ts';
import { table } from './table.ts';

interface UsageFlags extends AccessFlags {
  csv?: boolean;
  from?: string;
  to?: string;
  step: 'hour' | 'day';
}

interface Amounts {
  podSeconds: string;
  cpuSeconds: string;
  memoryByteSeconds: string;
  storageByteSeconds: string;
}

interface Usage {
  items: (Amounts & { tenant: string; start: string })[];
  total: Amounts;
}

const EVERYBODY = '/hypernetes/usage';

export async function usage(
  tenant: string | undefined,
  flags: UsageFlags,
  place: Place,
): Promise<void> {
  if (flags.csv && flags.json) throw new UsageError('Cannot print both --csv and --json.');
  const query = {
    ...{ from: readWhen(flags.from, '--from'), to: readWhen(flags.to, '--to') },
    ...{ step: flags.step, format: flags.csv ? 'csv' : 'json' },
  };
  await withCluster(flags, place, async ({ transport }) => {
    const whose = tenant ?? (await reviewSelf(transport)).tenant;
    const path = whose && `/apis/hypernetes.io/v1/tenants/${encodeURIComponent(whose)}/usage`;
    const text = await readText(transport, path ?? EVERYBODY, query).catch((error) => {
      // Of a tenant that is gone the operator's own path still tells.
      if (!(error instanceof RefusedError) || error.status !== 404) throw error;
      return readText(transport, EVERYBODY, { ...query, tenant: whose });
    });
    if (flags.csv) process.stdout.write(text);
    else if (flags.json) process.stdout.write(`${JSON.stringify(JSON.parse(text), null, 2)}\n`);
    else process.stdout.write(usageText(JSON.parse(text) as Usage, flags.step));
  });
}

const HEADER = [
  'TENANT',
  'START',
  'POD-HOURS',
  'CPU-HOURS',
  'MEMORY GiB-HOURS',
  'STORAGE GiB-HOURS',
];

export function usageText({ items, total }: Usage, step: 'hour' | 'day'): string {
  if (items.length === 0) return 'nothing was used\n';
  const startLength = step === 'day' ? '2026-01-31'.length : '2026-01-31T12:00'.length;
  const rows = items.map((item) => [
    item.tenant,
    item.start.slice(0, startLength),
    ...amountCells(item),
  ]);
  return table(HEADER, [...rows, ['total', '', ...amountCells(total)]]);
}

function amountCells(amounts: Amounts): string[] {
  const hours = (seconds: string, unit = 1) => (Number(seconds) / 3600 / unit).toFixed(2);
  return [
    hours(amounts.podSeconds),
    hours(amounts.cpuSeconds),
    hours(amounts.memoryByteSeconds, 2 ** 30),
    hours(amounts.storageByteSeconds, 2 ** 30),
  ];
}
