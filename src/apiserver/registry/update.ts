import type { KubeObject } from '../../api/object.ts';
import { notFound } from '../../api/status.ts';
import { DELETE } from '../../store/store.ts';
import type { MutateResult } from '../../store/store.ts';
import { readObject } from '../codec/decode.ts';
import { negotiate } from '../codec/negotiate.ts';
import type { ResourceContext } from '../context.ts';
import { attributesOf, requireAuthorization } from '../server/authorization.ts';
import type { ApiReply } from '../server/exchange.ts';
import { createObject, writtenReply } from './create.ts';
import type { Written } from './create.ts';
import { checkIdentity } from './metadata.ts';
import { bytesOf, cloneObject, keyOf, objectOf } from './resource.ts';
import { strategyOf } from './strategy.ts';
import { parseDryRun, updateTransform } from './write.ts';
import type { WriteTarget } from './write.ts';

/** PUT of an object, or of its status. */
export async function handleUpdate(context: ResourceContext): Promise<ApiReply> {
  const { row, info, exchange, server } = context;
  const representation = negotiate(exchange.headers.accept);
  const object = await readObject(context, row);
  const target = targetOf(context);
  checkIdentity(object, target.namespace, info.name);
  object.metadata.name ??= info.name;
  const key = keyOf(server.schema, row, target.namespace, info.name);
  const mayCreate = strategyOf(row).allowsCreateOnUpdate && !info.subresource;
  if (mayCreate && !server.store.get(key) && !object.metadata.resourceVersion) {
    requireAuthorization(server.authorizer, {
      ...attributesOf(info, context.user),
      verb: 'create',
    });
    const created = await createObject({ ...target, name: '' }, object);
    return writtenReply(context, 201, created, representation);
  }
  const written = await updateObject(target, () => cloneObject(object));
  return writtenReply(context, 200, written, representation);
}

export function targetOf(context: ResourceContext): WriteTarget {
  const { row, info, exchange } = context;
  return {
    context,
    row,
    subresource: info.subresource,
    namespace: row.namespaced ? info.namespace : '',
    name: info.name,
    dryRun: parseDryRun(exchange.query.getAll('dryRun')),
  };
}

/** Updates the newest state of an object. `makeDraft` may be called more than once. */
export async function updateObject(
  target: WriteTarget,
  makeDraft: (current: KubeObject) => KubeObject,
): Promise<Written> {
  const { context, row, namespace, name, dryRun } = target;
  const { store, schema } = context.server;
  const key = keyOf(schema, row, namespace, name);
  if (dryRun) return rehearse(target, updateTransform(target, makeDraft));
  const write = {};
  const transform = updateTransform({ ...target, write }, makeDraft);
  const settle = strategyOf(row).settle;
  let result: MutateResult | undefined;
  try {
    result = await store.mutate(key, transform);
    if (!result.entry) throw notFound(row.group, row.resource, name);
    return { object: objectOf(row, result.entry), bytes: bytesOf(row, result.entry) };
  } finally {
    context.server.admission.settle({ server: context.server, write });
    if (settle) {
      const entry = result?.deleted ? result.entry : store.get(key);
      const stored = result?.deleted ? undefined : entry?.object;
      if (entry) settle(entry.object.metadata.uid ?? '', stored, context.server);
    }
  }
}

/** What the update would make of the object, without storing it. */
function rehearse(target: WriteTarget, transform: ReturnType<typeof updateTransform>): Written {
  const { context, row, namespace, name } = target;
  const { store, schema } = context.server;
  const current = store.get(keyOf(schema, row, namespace, name));
  let next: ReturnType<typeof transform>;
  try {
    next = transform(current);
  } finally {
    const uid = current?.object.metadata.uid ?? '';
    strategyOf(row).settle?.(uid, current?.object, context.server);
  }
  if (!current) throw notFound(row.group, row.resource, name);
  if (next === undefined || next === DELETE) return { object: objectOf(row, current) };
  return { object: objectOf(row, { ...current, object: next }) };
}
