import { isStatus } from '../../api/status.ts';
import { allowanceAnnotation } from '../../api/holdings.ts';
import type { Usage } from '../../api/quota.ts';
import type { Tenant } from '../../api/tenancy.ts';
import type { Clock } from '../../base/clock.ts';
import { describeError } from '../../base/log.ts';
import type { Log } from '../../base/log.ts';
import type { Client } from '../../client/client.ts';
import { NODES, TENANTS } from '../../client/resources.ts';
import type { TenantDirectory } from './directory.ts';
import type { QuotaLedger } from './quota-ledger.ts';
import { memoryLeft } from './warm-pools.ts';
import type { WarmPools } from './warm-pools.ts';

/** Many objects come and go together: what is used then is written once. */
const SETTLE_MS = 500;

export interface QuotaStatusOptions {
  client: Client;
  quotas: QuotaLedger;
  warmPools: WarmPools;
  tenants: TenantDirectory;
  clock: Clock;
  log: Log;
  signal: AbortSignal;
}

/**
 * Writes into each Tenant with a quota what is used of it, and tells nodes how much of it VMs may take
 * that wait for the tenant's pods. Resolves when the signal has aborted.
 */
export async function keepQuotas(options: QuotaStatusOptions): Promise<void> {
  const { quotas, warmPools, tenants, clock, log, signal } = options;
  const changed = new Set<string>();
  let wake: () => void = () => {};
  const note = (name: string) => {
    changed.add(name);
    wake();
  };
  quotas.onChange = note;
  warmPools.onChange = note;
  signal.addEventListener('abort', () => wake(), { once: true });
  for (const name of tenants.names()) changed.add(name);
  while (!signal.aborted) {
    for (const name of [...changed]) {
      if (signal.aborted) return;
      changed.delete(name);
      await keepQuota(options, name).catch((error: unknown) => {
        if (isStatus(error, 'NotFound') || signal.aborted) return;
        log.warn('Cannot write what a tenant uses', { tenant: name, error: describeError(error) });
        changed.add(name);
      });
    }
    if (changed.size === 0) await new Promise<void>((resolve) => (wake = resolve));
    await clock.sleep(SETTLE_MS, signal).catch(() => undefined);
  }
}

async function keepQuota(options: QuotaStatusOptions, name: string): Promise<void> {
  const { client, quotas, warmPools, tenants, signal } = options;
  const tenant = tenants.get(name);
  if (!tenant) return;
  const hard = tenant.spec.quota?.hard ?? {};
  const used = quotas.measure(name, hard);
  const isSuspended = tenant.spec.suspended === true || tenant.status?.phase === 'Suspended';
  const freeBytes = isSuspended ? 0 : memoryLeft(hard, used);
  for (const { node, allowance } of warmPools.corrections(name, freeBytes)) {
    const value = allowance === null ? null : String(allowance);
    const metadata = { annotations: { [allowanceAnnotation(name)]: value } };
    await client.patch(NODES, { name: node }, 'merge', { metadata }, { signal });
  }
  const patch = statusPatch(tenant, warmPools.addTo(name, used));
  if (!patch) return;
  await client.patch(TENANTS, { name }, 'merge', patch, { subresource: 'status', signal });
}

/** Undefined when the status says it already. */
function statusPatch({ spec, status }: Tenant, used: Usage): object | undefined {
  const hard = spec.quota?.hard ?? {};
  const isLimited = Object.keys(hard).length > 0;
  if (!isLimited) return status?.quota ? { status: { quota: null } } : undefined;
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
