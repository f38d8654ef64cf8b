import { StatusError } from '../../api/status.ts';
import type { RequestContext, ResourceContext, ResourceHandler } from '../context.ts';
import { handleCreate } from '../registry/create.ts';
import { handleDelete, handleDeleteCollection } from '../registry/delete.ts';
import { deprecationOf } from '../registry/deprecations.ts';
import { handleGet } from '../registry/get.ts';
import { handleList } from '../registry/list.ts';
import { handlePatch } from '../registry/patch.ts';
import { SUBRESOURCES, VIRTUAL_RESOURCES } from '../registry/subresources/table.ts';
import { handleUpdate } from '../registry/update.ts';
import { handleWatch } from '../watch/watch.ts';
import { textReply } from '../codec/reply.ts';
import type { ApiReply } from './exchange.ts';
import { answerPath } from './paths.ts';

/** What every stored resource can do. */
const VERBS: Record<string, ResourceHandler> = {
  get: handleGet,
  list: handleList,
  watch: handleWatch,
  create: handleCreate,
  update: handleUpdate,
  patch: handlePatch,
  delete: handleDelete,
  deletecollection: handleDeleteCollection,
};

const STATUS_VERBS: Record<string, ResourceHandler> = {
  get: handleGet,
  update: handleUpdate,
  patch: handlePatch,
};

/** Verbs that work on a whole collection, and so also over all namespaces. */
const CLUSTER_VERBS = new Set(['list', 'watch', 'deletecollection']);

/** Whether a verb's path ends with a name. A list or watch may be of one name or of all. */
const NAMED_VERBS: Record<string, boolean | undefined> = {
  get: true,
  create: false,
  update: true,
  patch: true,
  delete: true,
  deletecollection: false,
};

/** Finds who answers a request that has been authorized. */
export async function dispatch(context: RequestContext): Promise<ApiReply> {
  const { info, server } = context;
  if (!info.isResourceRequest) return answerPath(context);
  const row = server.schema.byResource(info.group, info.version, info.resource);
  if (!row || !fitsScope(context, row.namespaced)) return pathNotFound();
  const handler = handlerOf({ ...context, row });
  if (handler === 'not-found') return pathNotFound();
  if (!handler) throw methodNotAllowed();
  const deprecation = deprecationOf(row);
  if (deprecation) context.warnings.push(deprecation);
  return handler({ ...context, row });
}

function fitsScope(context: RequestContext, isNamespaced: boolean): boolean {
  const { info } = context;
  if (isNamespaced || !info.namespace) return true;
  // A namespace is in itself, so far as authorization goes. What is permitted there must not reach
  // another one, as it would by `namespaces/mine/namespaces/other`.
  return info.group === '' && info.resource === 'namespaces' && info.name === info.namespace;
}

function handlerOf(context: ResourceContext): ResourceHandler | undefined | 'not-found' {
  const { row, info } = context;
  const resource = row.group ? `${row.resource}.${row.group}` : row.resource;
  if (info.subresource) {
    const declared = row.subresources.find((one) => one.name === info.subresource);
    if (!declared) return 'not-found';
    if (info.subresource === 'status') return STATUS_VERBS[info.verb];
    return SUBRESOURCES[`${resource}/${info.subresource}`]?.[info.verb];
  }
  const virtual = VIRTUAL_RESOURCES[resource];
  if (virtual) return virtual[info.verb];
  if (!row.verbs.includes(info.verb)) return undefined;
  // A creation is of what its body names: it must not pass for one of the name in the path.
  if (NAMED_VERBS[info.verb] !== undefined && NAMED_VERBS[info.verb] !== (info.name !== '')) {
    return undefined;
  }
  const isListOfName = CLUSTER_VERBS.has(info.verb);
  if (row.namespaced && !info.namespace && !(isListOfName && info.verb !== 'deletecollection')) {
    return undefined;
  }
  return VERBS[info.verb];
}

function methodNotAllowed(): StatusError {
  const message = 'the server does not allow this method on the requested resource';
  return new StatusError('MethodNotAllowed', message, { details: {} });
}

/** Not a Status: so clients tell a path that is not served from an object that is not there. */
function pathNotFound(): ApiReply {
  return textReply(404, '404 page not found\n');
}
