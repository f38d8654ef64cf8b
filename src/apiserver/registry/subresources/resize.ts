import type { KubeObject } from '../../../api/object.ts';
import { fields, items } from '../../../api/schema/validation/report.ts';
import type { Fields } from '../../../api/schema/validation/report.ts';
import { invalid } from '../../../api/status.ts';
import { readObject } from '../../codec/decode.ts';
import { negotiate } from '../../codec/negotiate.ts';
import type { ResourceContext } from '../../context.ts';
import type { ApiReply } from '../../server/exchange.ts';
import { writtenReply } from '../create.ts';
import { handleGet } from '../get.ts';
import { checkIdentity } from '../metadata.ts';
import { applyPatch, readPatch } from '../patch.ts';
import { cloneObject } from '../resource.ts';
import { targetOf, updateObject } from '../update.ts';
import { admissionRequest } from '../write.ts';

/**
 * `pods/{name}/resize`: the pod, of which what its containers may use is to be changed. The node's
 * kubelet then does it, or says in the status why it does not.
 */
export const resizeVerbs = { get: handleGet, update: handleUpdate, patch: handlePatch };

async function handleUpdate(context: ResourceContext): Promise<ApiReply> {
  const object = await readObject(context, context.row);
  checkIdentity(object, context.info.namespace, context.info.name);
  return writeResize(context, () => object);
}

async function handlePatch(context: ResourceContext): Promise<ApiReply> {
  const { namespace, name } = context.info;
  const patch = await readPatch(context);
  return writeResize(context, (current) => {
    const patched = applyPatch(context, current, patch);
    checkIdentity(patched, namespace, name);
    return patched;
  });
}

async function writeResize(
  context: ResourceContext,
  wantedFor: (current: KubeObject) => KubeObject,
): Promise<ApiReply> {
  const { server } = context;
  const representation = negotiate(context.exchange.headers.accept);
  const target = targetOf(context);
  // Quotas are kept under the lock that creations wait for too.
  const about = admissionRequest(target, 'UPDATE', undefined, undefined);
  const release = await server.admission.prepare(about);
  try {
    const written = await updateObject(target, (current) =>
      resized(context, current, wantedFor(current)),
    );
    return writtenReply(context, 200, written, representation);
  } finally {
    release();
  }
}

/** The pod with the resources that are wanted. Whatever else differs is dropped, as in Kubernetes. */
function resized(context: ResourceContext, current: KubeObject, wanted: KubeObject): KubeObject {
  const { resourceVersion, uid = current.metadata.uid } = wanted.metadata;
  const lists = ['containers', 'initContainers'].map((list) => [
    list,
    resizedContainers(context, list, fields(current.spec)[list], fields(wanted.spec)[list]),
  ]);
  const spec = { ...fields(current.spec), ...Object.fromEntries(lists) } as Fields;
  if (fields(current.spec)['initContainers'] === undefined) delete spec['initContainers'];
  const metadata = { ...current.metadata, resourceVersion, uid };
  return cloneObject({ ...current, metadata, spec });
}

function resizedContainers(
  { row, info }: ResourceContext,
  list: string,
  current: unknown,
  wanted: unknown,
): Fields[] {
  const byName = new Map(items(wanted).map((container) => [container['name'], container]));
  const known = items(current).filter(({ name }) => byName.has(name));
  if (byName.size !== items(current).length || known.length !== byName.size) {
    const message = 'Forbidden: a resize may not add, remove or rename containers';
    const cause = { reason: 'FieldValueForbidden', field: `spec.${list}`, message };
    throw invalid(row.group, row.kind, info.name, [cause]);
  }
  return items(current).map((container) => {
    const { resources, resizePolicy } = byName.get(container['name']) ?? {};
    const { resources: _, resizePolicy: __, ...rest } = container;
    return {
      ...rest,
      ...(resources === undefined ? {} : { resources }),
      ...(resizePolicy === undefined ? {} : { resizePolicy }),
    };
  });
}
