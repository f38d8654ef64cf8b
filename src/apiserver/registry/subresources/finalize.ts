import { rfc3339 } from '../../../base/clock.ts';
import type { KubeObject } from '../../../api/object.ts';
import { invalid } from '../../../api/status.ts';
import { readObject } from '../../codec/decode.ts';
import { negotiate } from '../../codec/negotiate.ts';
import type { ResourceContext } from '../../context.ts';
import type { ApiReply } from '../../server/exchange.ts';
import { writtenReply } from '../create.ts';
import { checkIdentity } from '../metadata.ts';
import { applyPatch, readPatch } from '../patch.ts';
import { cloneObject } from '../resource.ts';
import { mergeApproval } from '../strategies/certificates.ts';
import { targetOf, updateObject } from '../update.ts';

/** PUT of `namespaces/{name}/finalize`: its controller gives up what holds the namespace. */
export async function handleFinalize(context: ResourceContext): Promise<ApiReply> {
  const { info, row } = context;
  const representation = negotiate(context.exchange.headers.accept);
  const object = await readObject(context, row);
  checkIdentity(object, '', info.name);
  const target = targetOf(context);
  const written = await updateObject(target, (current) => {
    const { uid, resourceVersion } = object.metadata;
    const metadata = { ...current.metadata, resourceVersion, uid: uid ?? current.metadata.uid };
    const { finalizers } = (object.spec ?? {}) as { finalizers?: string[] };
    const spec = finalizers?.length ? { finalizers } : {};
    return cloneObject({ ...current, metadata, spec });
  });
  return writtenReply(context, 200, written, representation);
}

/** PUT of a certificate signing request's approval. */
export async function updateApproval(context: ResourceContext): Promise<ApiReply> {
  const object = await readObject(context, context.row);
  checkIdentity(object, '', context.info.name);
  return writeApproval(context, () => object);
}

/** PATCH of a certificate signing request's approval. */
export async function patchApproval(context: ResourceContext): Promise<ApiReply> {
  const patch = await readPatch(context);
  return writeApproval(context, (current) => applyPatch(context, current, patch));
}

async function writeApproval(
  context: ResourceContext,
  wantedFor: (current: KubeObject) => KubeObject,
): Promise<ApiReply> {
  const { row, server, info } = context;
  const representation = negotiate(context.exchange.headers.accept);
  const target = targetOf(context);
  // The subresource isolates like a status: nothing but the conditions comes from the client.
  const written = await updateObject(target, (current) => {
    const wanted = wantedFor(current);
    const { status, isRevoked } = mergeApproval(wanted, current, rfc3339(server.clock.nowMs()));
    if (isRevoked) {
      const message = 'Forbidden: approvals and denials may not be removed';
      const cause = { reason: 'FieldValueForbidden', field: 'status.conditions', message };
      throw invalid(row.group, row.kind, info.name, [cause]);
    }
    const { resourceVersion } = wanted.metadata;
    const metadata = { ...current.metadata, resourceVersion };
    return cloneObject({ ...current, metadata, status });
  });
  return writtenReply(context, 200, written, representation);
}
