import { notFound } from '../../api/status.ts';
import { FutureRevisionError } from '../../store/store.ts';
import type { Entry } from '../../store/store.ts';
import { negotiate } from '../codec/negotiate.ts';
import type { ResourceContext } from '../context.ts';
import type { ApiReply } from '../server/exchange.ts';
import { confined, confinementOf } from '../tenancy/confinement.ts';
import { writtenReply } from './create.ts';
import { parseResourceVersion } from './list-options.ts';
import { bytesOf, keyOf, objectOf } from './resource.ts';

/** GET of one object; its status subresource shows the same. */
export async function handleGet(context: ResourceContext): Promise<ApiReply> {
  const { row, exchange, server } = context;
  const representation = negotiate(exchange.headers.accept);
  const wanted = parseResourceVersion(exchange.query.get('resourceVersion') ?? '');
  if (wanted === undefined) await server.store.barrier();
  else if (wanted > server.store.revision) {
    throw new FutureRevisionError(wanted, server.store.revision);
  }
  const entry = requireEntry(context);
  const written = { object: objectOf(row, entry), bytes: bytesOf(row, entry) };
  return writtenReply(context, 200, written, representation);
}

/** The object that the request's path names. @throws StatusError 404 */
export function requireEntry(context: ResourceContext): Entry {
  const { row, info, server } = context;
  const stored = server.store.get(keyOf(server.schema, row, info.namespace, info.name));
  const entry = confined(confinementOf(context, row), stored);
  if (!entry) throw notFound(row.group, row.resource, info.name);
  return entry;
}
