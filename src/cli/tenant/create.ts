import type { Tenant } from '../../api/tenancy.ts';
import { TENANT_API_VERSION } from '../../api/tenancy.ts';
import { TENANTS } from '../../client/resources.ts';
import { withCluster } from '../access.ts';
import type { AccessFlags, Place } from '../access.ts';
import { parseDuration } from '../duration.ts';
import { print } from '../output.ts';
import { parseMember } from './member.ts';
import { parseLimits } from './quota.ts';
import { watchTenant } from './watch.ts';

export interface CreateFlags extends AccessFlags {
  displayName?: string;
  parent?: string;
  projectId?: string;
  quota?: string[];
  admin?: string[];
  member?: string[];
  reader?: string[];
  wait?: boolean;
  timeout: string;
}

/** Makes a tenant; the cluster makes its project, and gives its people their roles. */
export async function createTenant(name: string, flags: CreateFlags, place: Place): Promise<void> {
  const timeoutMs = parseDuration(flags.timeout, '--timeout');
  const { set: hard } = parseLimits(flags.quota ?? []);
  const members = (['admin', 'member', 'reader'] as const).flatMap((role) =>
    (flags[role] ?? []).map((who) => parseMember(who, 'User', role)),
  );
  const tenant: Tenant = {
    apiVersion: TENANT_API_VERSION,
    kind: 'Tenant',
    metadata: { name },
    spec: {
      ...(flags.displayName && { displayName: flags.displayName }),
      ...(flags.parent && { parent: flags.parent }),
      ...(flags.projectId && { projectID: flags.projectId }),
      ...(Object.keys(hard).length > 0 && { quota: { hard } }),
      ...(members.length > 0 && { members }),
    },
  };
  await withCluster(flags, place, async ({ client }) => {
    let made = await client.create(TENANTS, tenant);
    if (flags.wait) {
      await watchTenant(client, name, { timeoutMs, until: 'active' }, (seen) => {
        if (seen) made = seen;
        return seen?.status?.phase === 'Active';
      });
    }
    print(flags.json, made, () => `tenant "${name}" ${flags.wait ? 'is active' : 'created'}\n`);
  });
}
