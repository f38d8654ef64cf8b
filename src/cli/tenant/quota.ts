import { TENANTS } from '../../client/resources.ts';
import { withCluster } from '../access.ts';
import type { AccessFlags, Cluster, Place } from '../access.ts';
import { UsageError } from '../errors.ts';
import { reviewSelf } from '../login/reviewed.ts';
import { print } from '../output.ts';
import { quotaTable } from './show.ts';
import { getTenant } from './watch.ts';

export interface Limits {
  set: Record<string, string>;
  /** Without limit from now on. */
  lifted: string[];
}

/** `pods=10` limits, `pods-` lifts the limit, as labels are set and removed in kubectl. */
export function parseLimits(words: string[]): Limits {
  const limits: Limits = { set: {}, lifted: [] };
  for (const word of words.flatMap((text) => text.split(','))) {
    const [, name = '', hard] = /^([^=]+)=(\S+)$/.exec(word) ?? [];
    const lifted = /^([^=]+)-$/.exec(word)?.[1];
    if (hard !== undefined) limits.set[name] = hard;
    else if (lifted) limits.lifted.push(lifted);
    else {
      throw new UsageError(
        `Cannot read the limit "${word}": write it as pods=10, or pods- to lift it.`,
      );
    }
  }
  return limits;
}

/** @param given absent: the tenant that the caller is logged in for */
export async function showQuota(
  given: string | undefined,
  flags: AccessFlags,
  place: Place,
): Promise<void> {
  await withCluster(flags, place, async (cluster) => {
    const name = given ?? (await ownTenant(cluster));
    const tenant = await getTenant(cluster.client, name);
    const { hard = {} } = tenant.spec.quota ?? {};
    const result = { tenant: name, hard, used: tenant.status?.quota?.used ?? {} };
    print(
      flags.json,
      result,
      () => quotaTable(tenant) || `Tenant "${name}" has no limits, and nothing is counted yet.\n`,
    );
  });
}

export async function setQuota(
  name: string,
  words: string[],
  flags: AccessFlags,
  place: Place,
): Promise<void> {
  const { set, lifted } = parseLimits(words);
  if (words.length === 0) throw new UsageError('Name at least one limit, such as pods=10.');
  // A merge patch takes away what is null.
  const hard = { ...Object.fromEntries(lifted.map((key) => [key, null])), ...set };
  await withCluster(flags, place, async ({ client }) => {
    await getTenant(client, name);
    const tenant = await client.patch(TENANTS, { name }, 'merge', { spec: { quota: { hard } } });
    print(flags.json, tenant.spec.quota?.hard ?? {}, () => quotaTable(tenant));
  });
}

async function ownTenant({ transport }: Cluster): Promise<string> {
  const { tenant } = await reviewSelf(transport);
  if (tenant) return tenant;
  throw new UsageError('You are logged in for no tenant: name one.');
}
