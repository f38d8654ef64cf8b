import { dataDirectory, dataPaths } from './config.ts';
import type { DataPaths } from './config.ts';
import { UsageError } from './errors.ts';

interface Report {
  render(): string;
  json: unknown;
}

/** Benchmarks lie outside of the product; they are found by name. */
const BENCHMARKS: Record<string, { module: string; run: string }> = {
  'pod-start': { module: 'pod-start.ts', run: 'benchPodStart' },
  api: { module: 'api.ts', run: 'benchApi' },
  footprint: { module: 'footprint.ts', run: 'benchFootprint' },
  store: { module: 'store.ts', run: 'benchStore' },
  image: { module: 'image.ts', run: 'benchImage' },
  tenants: { module: 'tenants.ts', run: 'benchTenants' },
  kernels: { module: 'kernels.ts', run: 'benchKernels' },
  streams: { module: 'streams.ts', run: 'benchStreams' },
  rate: { module: 'rate.ts', run: 'benchRate' },
  density: { module: 'density.ts', run: 'benchDensity' },
  identity: { module: 'identity.ts', run: 'benchIdentity' },
};

export async function bench(
  dataDir: string | undefined,
  name: string,
  options: { json?: boolean; count?: string; pods?: string },
): Promise<void> {
  const found = BENCHMARKS[name];
  if (!found) {
    throw new UsageError(
      `There is no benchmark "${name}"; there are: ${Object.keys(BENCHMARKS).join(', ')}.`,
    );
  }
  if (options.pods !== undefined && name !== 'density') {
    throw new UsageError(`Cannot use --pods with "${name}": it is of density alone.`);
  }
  const count = options.pods ?? options.count;
  const report = await load(found, dataPaths(dataDirectory(dataDir)), readCount(count));
  process.stdout.write(
    options.json ? `${JSON.stringify(report.json, null, 2)}\n` : report.render(),
  );
}

async function load(
  { module, run }: { module: string; run: string },
  paths: DataPaths,
  count: number | undefined,
): Promise<Report> {
  const folder = new URL('../../bench/', import.meta.url).href;
  const { [run]: measure } = (await import(`${folder}${module}`)) as Record<
    string,
    (paths: DataPaths, count?: number) => Promise<unknown>
  >;
  const { renderReport } = (await import(`${folder}report.ts`)) as {
    renderReport: (report: unknown) => string;
  };
  const report = await measure?.(paths, count);
  return { json: report, render: () => renderReport(report) };
}

function readCount(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const count = Number(text);
  if (Number.isInteger(count) && count >= 1 && count <= 100_000) return count;
  throw new UsageError(
    `Cannot measure "${text}" times: --count must be a whole number from 1 to 100000.`,
  );
}
