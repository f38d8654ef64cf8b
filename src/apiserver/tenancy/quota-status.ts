import { isStatus } from '../../api/status.ts';
import type { Tenant } from '../../api/tenancy.ts';
import type { Clock } from '../../base/clock.ts';
import { describeError } from '../../base/log.ts';
import type { Log } from '../../base/log.ts';
import type { Client } from '../../client/client.ts';
import { TENANTS } from '../../client/resources.ts';
import type { TenantDirectory } from './directory.ts';
import type { QuotaLedger } from './quota-ledger.ts';

/** Many objects come and go together: what is used then is written once. */
const SETTLE_MS = 500;

export interface QuotaStatusOptions {
  client: Client;
  quotas: QuotaLedger;
  tenants: TenantDirectory;
  clock: Clock;
  log: Log;
  signal: AbortSignal;
}

/** Writes into each Tenant with a quota what is used of it. Resolves when the signal has aborted. */
export async function writeQuotaStatus(options: QuotaStatusOptions): Promise<void> {
  const { client, quotas, tenants, clock, log, signal } = options;
  const changed = new Set<string>();
  let wake: () => void = () => {};
  quotas.onChange = (name) => {
    changed.add(name);
    wake();
  };
  signal.addEventListener('abort', () => wake(), { once: true });
  for (const name of tenants.names()) changed.add(name);
  while (!signal.aborted) {
    for (const name of [...changed]) {
      if (signal.aborted) return;
      changed.delete(name);
      const tenant = tenants.get(name);
      const patch = tenant && statusPatch(tenant, quotas);
      if (!patch) continue;
      const write = { subresource: 'status', signal };
      await client.patch(TENANTS, { name }, 'merge', patch, write).catch((error: unknown) => {
        if (isStatus(error, 'NotFound') || signal.aborted) return;
        log.warn('Cannot write what a tenant uses', { tenant: name, error: describeError(error) });
        changed.add(name);
      });
    }
    if (changed.size === 0) await new Promise<void>((resolve) => (wake = resolve));
    await clock.sleep(SETTLE_MS, signal).catch(() => undefined);
  }
}

/** Undefined when the status says it already. */
function statusPatch({ metadata, spec, status }: Tenant, quotas: QuotaLedger): object | undefined {
  const hard = spec.quota?.hard ?? {};
  const isLimited = Object.keys(hard).length > 0;
  if (!isLimited) return status?.quota ? { status: { quota: null } } : undefined;
  const used = quotas.measure(metadata.name ?? '', hard);
  if (isSame(status?.quota?.hard, hard) && isSame(status?.quota?.used, used)) return undefined;
  // Names that are no longer limited have to be taken away one by one.
  const gone = Object.keys({ ...status?.quota?.hard, ...status?.quota?.used })
    .filter((name) => hard[name] === undefined)
    .map((name) => [name, null]);
  const cleared = Object.fromEntries(gone) as Record<string, null>;
  return { status: { quota: { hard: { ...cleared, ...hard }, used: { ...cleared, ...used } } } };
}

function isSame(a: Record<string, string> | undefined, b: Record<string, string>): boolean {
  const names = Object.keys(b);
  return (
    names.length === Object.keys(a ?? {}).length && names.every((name) => a?.[name] === b[name])
  );
}
