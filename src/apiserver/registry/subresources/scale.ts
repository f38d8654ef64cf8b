import type { KubeObject } from '../../../api/object.ts';
import { columnsOf } from '../../../api/schema/columns.ts';
import { applyPatch } from '../../../api/schema/patch/patch.ts';
import type { ResourceRow } from '../../../api/schema/schema.ts';
import { formatLabelSelector } from '../../../api/selectors.ts';
import type { LabelSelectorObject } from '../../../api/selectors.ts';
import { conflict, invalid } from '../../../api/status.ts';
import { checkStructure, optionType, readObject } from '../../codec/decode.ts';
import { negotiate } from '../../codec/negotiate.ts';
import type { Representation } from '../../codec/negotiate.ts';
import { includeObjectOf, objectReply } from '../../codec/represent.ts';
import type { ResourceContext } from '../../context.ts';
import type { ApiReply } from '../../server/exchange.ts';
import { requireEntry } from '../get.ts';
import { checkIdentity } from '../metadata.ts';
import { readPatch } from '../patch.ts';
import { cloneObject, objectOf } from '../resource.ts';
import { targetOf, updateObject } from '../update.ts';

const GROUP = 'autoscaling';
const VERSION = 'v1';

/** The view of a workload through which anything that has replicas is scaled. */
function scaleOf(object: KubeObject): KubeObject {
  const { name, namespace, uid, resourceVersion, creationTimestamp } = object.metadata;
  const spec = (object.spec ?? {}) as { replicas?: number; selector?: unknown };
  const status = (object.status ?? {}) as { replicas?: number };
  const selector = selectorText(spec.selector);
  return {
    kind: 'Scale',
    apiVersion: `${GROUP}/${VERSION}`,
    metadata: { name, namespace, uid, resourceVersion, creationTimestamp },
    spec: spec.replicas ? { replicas: spec.replicas } : {},
    status: { replicas: status.replicas ?? 0, ...(selector ? { selector } : {}) },
  };
}

/** A replication controller's selector is a plain map, everybody else's an object. */
function selectorText(selector: unknown): string {
  if (typeof selector !== 'object' || selector === null) return '';
  const isObjectForm = 'matchLabels' in selector || 'matchExpressions' in selector;
  const object = isObjectForm ? selector : { matchLabels: selector };
  return formatLabelSelector(object as LabelSelectorObject);
}

/** In the shape that the client asked for. */
function scaleReply(
  { server, exchange, row }: ResourceContext,
  scale: KubeObject,
  representation: Representation,
): ApiReply {
  const includeObject = includeObjectOf(exchange.query);
  const options = { includeObject, nowMs: server.clock.nowMs() };
  return objectReply(200, scaleRow(row), scale, representation, options);
}

/** What is printed as a table is the scale and not the workload. */
function scaleRow(row: ResourceRow): ResourceRow {
  return { ...row, group: GROUP, resource: 'scales', columns: columnsOf(GROUP, 'scales') };
}

async function getScale(context: ResourceContext): Promise<ApiReply> {
  const representation = negotiate(context.exchange.headers.accept);
  await context.server.store.barrier();
  const entry = requireEntry(context);
  return scaleReply(context, scaleOf(objectOf(context.row, entry)), representation);
}

async function updateScale(context: ResourceContext): Promise<ApiReply> {
  const expected = optionType(context.server.schema, GROUP, VERSION, 'Scale');
  const scale = await readObject(context, expected);
  checkIdentity(scale, context.info.namespace, context.info.name);
  return writeScale(context, () => scale);
}

async function patchScale(context: ResourceContext): Promise<ApiReply> {
  const { server } = context;
  const expected = optionType(server.schema, GROUP, VERSION, 'Scale');
  const patch = await readPatch(context);
  return writeScale(context, (current) => {
    const { mediaType, value } = patch;
    const patched = applyPatch(server.schema, expected, scaleOf(current), mediaType, value);
    return checkStructure(context, expected, patched, []);
  });
}

async function writeScale(
  context: ResourceContext,
  scaleFor: (current: KubeObject) => KubeObject,
): Promise<ApiReply> {
  const representation = negotiate(context.exchange.headers.accept);
  const target = targetOf(context);
  const written = await updateObject({ ...target, subresource: 'scale' }, (current) => {
    const scale = scaleFor(current);
    checkScale(context, scale, current);
    const draft = cloneObject(current);
    const replicas = (scale.spec as { replicas?: number } | undefined)?.replicas ?? 0;
    draft.spec = { ...(draft.spec as object | undefined), replicas };
    return draft;
  });
  return scaleReply(context, scaleOf(written.object), representation);
}

/** The lock and the bounds are those of the scale that the client sent. */
function checkScale(context: ResourceContext, scale: KubeObject, current: KubeObject): void {
  const { group, resource } = context.row;
  const { uid, resourceVersion } = scale.metadata;
  const { name = '' } = current.metadata;
  if (uid && uid !== current.metadata.uid) {
    const why =
      `Precondition failed: UID in precondition: ${uid}, ` +
      `UID in object meta: ${current.metadata.uid}`;
    throw conflict(group, resource, name, why);
  }
  if (resourceVersion && resourceVersion !== current.metadata.resourceVersion) {
    const why =
      'the object has been modified; please apply your changes to the latest version and try again';
    throw conflict(group, resource, name, why);
  }
  const { replicas = 0 } = (scale.spec ?? {}) as { replicas?: number };
  if (replicas >= 0) return;
  const message = `Invalid value: ${replicas}: must be greater than or equal to 0`;
  const cause = { reason: 'FieldValueInvalid', field: 'spec.replicas', message };
  throw invalid(GROUP, 'Scale', name, [cause]);
}

export const scaleVerbs = { get: getScale, update: updateScale, patch: patchScale };
