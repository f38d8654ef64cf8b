import { compareQuantities } from '../../api/quantity.ts';
import type { Tenant } from '../../api/tenancy.ts';
import { TENANTS } from '../../client/resources.ts';
import { withCluster } from '../access.ts';
import type { AccessFlags, Place } from '../access.ts';
import { age, describe, print } from '../output.ts';
import { table } from '../table.ts';
import { getTenant } from './watch.ts';

export async function listTenants(flags: AccessFlags, place: Place): Promise<void> {
  await withCluster(flags, place, async ({ client }) => {
    const { items } = await client.listAll(TENANTS);
    print(flags.json, items, () =>
      table(
        ['NAME', 'PHASE', 'NAMESPACES', 'PARENT', 'AGE'],
        items.map(({ metadata, spec, status }) => [
          metadata.name ?? '',
          status?.phase ?? 'Pending',
          String(status?.namespaceCount ?? 0),
          spec.parent ?? '-',
          age(metadata.creationTimestamp),
        ]),
      ),
    );
  });
}

export async function showTenant(name: string, flags: AccessFlags, place: Place): Promise<void> {
  await withCluster(flags, place, async ({ client }) => {
    const tenant = await getTenant(client, name);
    print(flags.json, tenant, () => tenantText(tenant));
  });
}

function tenantText({ metadata, spec, status }: Tenant): string {
  const head = describe({
    Name: metadata.name,
    'Display name': spec.displayName,
    Phase: status?.phase ?? 'Pending',
    Parent: spec.parent,
    Project: status?.projectID,
    Namespaces: String(status?.namespaceCount ?? 0),
    Age: age(metadata.creationTimestamp),
  });
  const conditions = (status?.conditions ?? []).map((one) => [
    ...[one.type, one.status, one.reason, age(one.lastTransitionTime), one.message],
  ]);
  const parts = [
    head,
    conditions.length > 0 && table(['CONDITION', 'STATUS', 'REASON', 'AGE', 'MESSAGE'], conditions),
    quotaTable({ spec, status }),
  ];
  return parts.filter(Boolean).join('\n');
}

/** What is used of what there may be; a `!` stands where nothing is left. */
export function quotaTable({ spec, status }: Pick<Tenant, 'spec' | 'status'>): string {
  const hard = spec.quota?.hard ?? {};
  const used = status?.quota?.used ?? {};
  const names = [...new Set([...Object.keys(hard), ...Object.keys(used)])].sort();
  if (names.length === 0) return '';
  const rows = names.map((name) => {
    const [most, now] = [hard[name], used[name] ?? '0'];
    const isFull = most !== undefined && compareQuantities(now, most) >= 0;
    return [name, now, most ?? '-', isFull ? '!' : ''];
  });
  return table(['RESOURCE', 'USED', 'HARD', ''], rows);
}
