import type { KubeObject } from '../../api/object.ts';
import { StatusError, badRequest, invalid } from '../../api/status.ts';
import { parseJson } from '../../api/json.ts';
import { acceptedPatchTypes, applyPatch as patchedObject } from '../../api/schema/patch/patch.ts';
import { readBody } from '../codec/body.ts';
import { checkStructure } from '../codec/decode.ts';
import { negotiate, parseMediaType } from '../codec/negotiate.ts';
import type { ResourceContext } from '../context.ts';
import type { ApiReply } from '../server/exchange.ts';
import { writtenReply } from './create.ts';
import { checkIdentity } from './metadata.ts';
import { targetOf, updateObject } from './update.ts';

/** Of a patch that cannot be applied, so much is shown in the answer. */
const PATCH_SHOWN_LENGTH_MAX = 512;

/** PATCH of an object, or of its status. */
export async function handlePatch(context: ResourceContext): Promise<ApiReply> {
  const { exchange, info, row } = context;
  const representation = negotiate(exchange.headers.accept);
  const target = targetOf(context);
  const patch = await readPatch(context);
  const written = await updateObject(target, (current) => {
    const patched = applyPatch(context, current, patch);
    checkIdentity(patched, target.namespace, info.name);
    return patched;
  });
  return writtenReply({ ...context, row }, 200, written, representation);
}

export interface Patch {
  mediaType: string;
  value: unknown;
}

/**
 * @throws StatusError 415 for a type that is not served: clients that try server-side apply or
 *   CBOR first then fall back
 */
export async function readPatch(context: ResourceContext): Promise<Patch> {
  const { exchange, server } = context;
  const { type: mediaType } = parseMediaType(exchange.headers['content-type'] ?? '');
  const accepted = acceptedPatchTypes(server.schema, context.row);
  if (!accepted.includes(mediaType)) {
    const message =
      'the body of the request was in an unknown format - accepted media types include: ' +
      accepted.join(', ');
    throw new StatusError('UnsupportedMediaType', message);
  }
  const bytes = await readBody(exchange, server.limits, server.clock);
  await server.turns.take(context.user);
  try {
    return { mediaType, value: parseJson(Buffer.from(bytes).toString('utf8')).value };
  } catch (error) {
    throw badRequest(`error decoding patch: ${error instanceof Error ? error.message : error}`);
  }
}

/** The patched object, structurally checked; nothing of the current one is changed. */
export function applyPatch(
  context: ResourceContext,
  current: KubeObject,
  patch: Patch,
): KubeObject {
  const { row, server } = context;
  const patched = patchedObject(server.schema, row, current, patch.mediaType, patch.value);
  try {
    return checkStructure(context, row, patched, []);
  } catch (error) {
    if (!(error instanceof StatusError) || error.reason !== 'BadRequest') throw error;
    const shown = JSON.stringify(patch.value)?.slice(0, PATCH_SHOWN_LENGTH_MAX);
    const message = `Invalid value: ${shown}: ${error.message}`;
    const cause = { reason: 'FieldValueInvalid', field: 'patch', message };
    throw invalid(row.group, row.kind, current.metadata.name ?? '', [cause]);
  }
}
