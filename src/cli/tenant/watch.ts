import { StatusError } from '../../api/status.ts';
import type { Tenant } from '../../api/tenancy.ts';
import type { Client } from '../../client/client.ts';
import { TENANTS } from '../../client/resources.ts';
import { UsageError } from '../errors.ts';

/**
 * Shows a tenant as it changes to `look`, from its present state on, until that returns true.
 * `undefined` stands for one that is gone.
 *
 * @throws UsageError after `timeoutMs`, that says what was waited for
 */
export async function watchTenant(
  client: Client,
  name: string,
  options: { timeoutMs: number; until: string },
  look: (tenant: Tenant | undefined) => boolean,
): Promise<void> {
  const signal = AbortSignal.timeout(options.timeoutMs);
  const select = { fieldSelector: `metadata.name=${name}`, signal };
  try {
    for (;;) {
      const { items, metadata } = await client.list(TENANTS, select);
      if (look(items[0])) return;
      const resourceVersion = metadata.resourceVersion ?? '';
      const watch = client.watch(TENANTS, { ...select, resourceVersion });
      for await (const event of watch) {
        if (event.type === 'BOOKMARK') continue;
        if (look(event.type === 'DELETED' ? undefined : event.object)) return;
      }
    }
  } catch (error) {
    if (!signal.aborted) throw error;
    const seconds = Math.round(options.timeoutMs / 1000);
    throw new UsageError(
      `The tenant "${name}" is not ${options.until} after ${seconds} s; it goes on, and ` +
        `"hypernetes tenant show ${name}" tells how far it is.`,
    );
  }
}

/** @throws UsageError where there is none, or none that the caller may see */
export async function getTenant(client: Client, name: string): Promise<Tenant> {
  try {
    return await client.get(TENANTS, { name });
  } catch (error) {
    if (!(error instanceof StatusError) || error.code !== 404) throw error;
    throw new UsageError(`There is no tenant "${name}".`);
  }
}
