import type { Tenant } from '../../api/tenancy.ts';
import { StatusError } from '../../api/status.ts';
import { TENANTS } from '../../client/resources.ts';
import { withCluster } from '../access.ts';
import type { AccessFlags, Place } from '../access.ts';
import { parseDuration } from '../duration.ts';
import { UsageError } from '../errors.ts';
import { print } from '../output.ts';
import { openTerminal } from '../prompt.ts';
import { getTenant, watchTenant } from './watch.ts';

export interface ChangeFlags extends AccessFlags {
  wait?: boolean;
  timeout: string;
  yes?: boolean;
}

/** Stops everything of a tenant, or lets it go on. */
export async function suspendTenant(
  name: string,
  isSuspended: boolean,
  flags: ChangeFlags,
  place: Place,
): Promise<void> {
  const timeoutMs = parseDuration(flags.timeout, '--timeout');
  const phase = isSuspended ? 'Suspended' : 'Active';
  await withCluster(flags, place, async ({ client }) => {
    await getTenant(client, name);
    const body = { spec: { suspended: isSuspended } };
    let tenant = await client.patch(TENANTS, { name }, 'merge', body);
    if (flags.wait) {
      await watchTenant(client, name, { timeoutMs, until: phase.toLowerCase() }, (seen) => {
        if (seen) tenant = seen;
        return seen?.status?.phase === phase;
      });
    }
    print(flags.json, tenant, () => `tenant "${name}" ${isSuspended ? 'suspended' : 'resumed'}\n`);
  });
}

/** Deletes a tenant with all that it owns. With `--wait`, tells the steps as they pass. */
export async function deleteTenant(name: string, flags: ChangeFlags, place: Place): Promise<void> {
  const timeoutMs = parseDuration(flags.timeout, '--timeout');
  await withCluster(flags, place, async ({ client }) => {
    const tenant = await getTenant(client, name);
    if (!flags.yes) await confirmDeletion(tenant);
    const tell = (text: string) => flags.json || process.stdout.write(text);
    try {
      await client.delete(TENANTS, { name }, { uid: tenant.metadata.uid });
    } catch (error) {
      if (!(error instanceof StatusError) || error.code !== 404) throw error;
    }
    const told = new Map<string, string>();
    let last: Tenant = tenant;
    news(tenant, told);
    if (flags.wait) {
      await watchTenant(client, name, { timeoutMs, until: 'gone' }, (seen) => {
        // One of the same name may have been made meanwhile.
        if (seen?.metadata.uid !== tenant.metadata.uid) return true;
        last = seen ?? last;
        for (const line of news(last, told)) tell(line);
        return false;
      });
    }
    tell(`tenant "${name}" ${flags.wait ? 'is gone' : 'is being deleted'}\n`);
    if (flags.json) print(true, { tenant: name, isGone: Boolean(flags.wait) }, () => '');
  });
}

/** Conditions that say something else than when they were told. */
function news({ status }: Tenant, told: Map<string, string>): string[] {
  return (status?.conditions ?? []).flatMap(({ type, status: is, reason, message }) => {
    const text = `${type}=${is} ${reason}${message ? `: ${message}` : ''}`;
    if (told.get(type) === text) return [];
    told.set(type, text);
    return [`${text}\n`];
  });
}

async function confirmDeletion({ metadata, status }: Tenant): Promise<void> {
  const { name } = metadata;
  const terminal = openTerminal();
  if (!terminal) {
    throw new UsageError(
      `Deleting the tenant "${name}" destroys everything that it owns: say --yes if it is meant.`,
    );
  }
  const count = status?.namespaceCount ?? 0;
  const answer = await terminal.ask(
    `This destroys the tenant "${name}" with ${count} namespaces and all that is in them.\n` +
      'Type its name to go on: ',
  );
  if (answer !== name) throw new UsageError('That is not its name; nothing was deleted.');
}
