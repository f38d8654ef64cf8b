import type { KubeObject } from '../../api/object.ts';
import { StatusError, alreadyExists, invalid, isStatus } from '../../api/status.ts';
import { negotiate } from '../codec/negotiate.ts';
import { readObject } from '../codec/decode.ts';
import { includeObjectOf, objectReply } from '../codec/represent.ts';
import type { RequestContext, ResourceContext } from '../context.ts';
import type { ApiReply } from '../server/exchange.ts';
import { checkIdentity, prepareMetadata } from './metadata.ts';
import { bytesOf, cloneObject, keyOf, objectOf, toStorage } from './resource.ts';
import { strategyOf } from './strategy.ts';
import { admissionRequest, completeCreation, parseDryRun } from './write.ts';
import type { WriteTarget } from './write.ts';

/** Kubernetes tries so often until a generated name is free. */
const GENERATED_NAME_ATTEMPTS = 8;

export interface Written {
  /** In the version of the request's row. */
  object: KubeObject;
  bytes?: Uint8Array;
}

/** POST to a collection. */
export async function handleCreate(context: ResourceContext): Promise<ApiReply> {
  const { row, info, exchange } = context;
  const representation = negotiate(exchange.headers.accept);
  const dryRun = parseDryRun(exchange.query.getAll('dryRun'));
  const object = await readObject(context, row);
  const namespace = row.namespaced ? info.namespace : '';
  checkIdentity(object, namespace, '');
  const target = { context, row, subresource: '', namespace, name: '', dryRun };
  return writtenReply(context, 201, await createObject(target, object), representation);
}

/**
 * Creates an object from a client's draft.
 *
 * @throws StatusError 409 when the name is taken; generated names are tried again
 */
export async function createObject(target: WriteTarget, draft: KubeObject): Promise<Written> {
  const isGenerated = !draft.metadata.name && Boolean(draft.metadata.generateName);
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await createOnce(target, cloneObject(draft));
    } catch (error) {
      const mayRetry = isGenerated && attempt < GENERATED_NAME_ATTEMPTS;
      if (!mayRetry || !isStatus(error, 'AlreadyExists')) throw error;
    }
  }
}

async function createOnce(target: WriteTarget, draft: KubeObject): Promise<Written> {
  const { context, row, namespace, dryRun } = target;
  const { server } = context;
  prepareMetadata(server, draft, namespace);
  const name = draft.metadata.name;
  if (!name) throw nameRequired(row);
  const key = keyOf(server.schema, row, namespace, name);
  const settle = strategyOf(row).settle;
  const uid = draft.metadata.uid ?? '';
  let stored: KubeObject | undefined;
  const write = dryRun ? undefined : {};
  const about = admissionRequest({ ...target, name, write }, 'CREATE', draft, undefined);
  const release = await server.admission.prepare(about);
  try {
    const object = completeCreation({ ...target, name, write }, draft);
    if (dryRun) {
      if (server.store.get(key)) throw alreadyExists(row.group, row.resource, name);
      return { object };
    }
    const result = await server.store.mutate(key, (current) => {
      if (current) throw existing(row, current.object, name);
      return toStorage(server.schema, row, object);
    });
    if (!result.entry) throw new StatusError('InternalError', `"${name}" was not stored`);
    stored = result.entry.object;
    return { object: objectOf(row, result.entry), bytes: bytesOf(row, result.entry) };
  } finally {
    settle?.(uid, stored, server);
    server.admission.settle(about);
    release();
  }
}

function existing(row: ResourceContext['row'], object: KubeObject, name: string): StatusError {
  const error = alreadyExists(row.group, row.resource, name);
  if (!object.metadata.deletionTimestamp) return error;
  const message = `object is being deleted: ${error.message}`;
  return new StatusError('AlreadyExists', message, { details: error.details });
}

function nameRequired(row: ResourceContext['row']): StatusError {
  const message = 'Required value: name or generateName is required';
  const cause = { reason: 'FieldValueRequired', field: 'metadata.name', message };
  return invalid(row.group, row.kind, '', [cause]);
}

export function writtenReply(
  context: RequestContext & { row: ResourceContext['row'] },
  status: number,
  written: Written,
  representation: ReturnType<typeof negotiate>,
): ApiReply {
  return objectReply(status, context.row, written.object, representation, {
    includeObject: includeObjectOf(context.exchange.query),
    nowMs: context.server.clock.nowMs(),
    ...(written.bytes ? { bytes: written.bytes } : {}),
  });
}
