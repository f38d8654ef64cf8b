import { isDeepStrictEqual } from 'node:util';
import type { KubeObject } from '../../api/object.ts';
import { applyDefaults } from '../../api/schema/defaults.ts';
import type { ResourceRow } from '../../api/schema/schema.ts';
import { validateCreate, validateUpdate } from '../../api/schema/validation/validation.ts';
import { badRequest, conflict, invalid, notFound } from '../../api/status.ts';
import type { StatusCause } from '../../api/status.ts';
import { DELETE } from '../../store/store.ts';
import type { Entry, Transform } from '../../store/store.ts';
import type { AdmissionRequest, Operation } from '../admission/chain.ts';
import type { RequestContext } from '../context.ts';
import { confined, confinementOf } from '../tenancy/confinement.ts';
import { keepMetadata } from './metadata.ts';
import { cloneObject, objectOf, toStorage } from './resource.ts';
import { strategyOf } from './strategy.ts';
import type { StrategyContext } from './strategy.ts';

/** What one write is about. Several objects of one request each have their own. */
export interface WriteTarget {
  context: RequestContext;
  row: ResourceRow;
  /** Empty, `status`, … */
  subresource: string;
  namespace: string;
  name: string;
  dryRun: boolean;
  /** Its identity for admission; absent for what is not going to be stored. */
  write?: object;
}

/** `dryRun=All` computes everything and stores nothing. */
export function parseDryRun(values: string[]): boolean {
  if (values.length === 0) return false;
  if (values.every((value) => value === 'All')) return true;
  throw badRequest(`the option "dryRun" is ${JSON.stringify(values)}: it has to be All`);
}

function hookContext(target: WriteTarget): StrategyContext {
  const { context, subresource, dryRun } = target;
  const warn = (text: string) => void context.warnings.push(text);
  return { server: context.server, user: context.user, subresource, dryRun, warn };
}

export function admissionRequest(
  target: WriteTarget,
  operation: Operation,
  object: KubeObject | undefined,
  oldObject: KubeObject | undefined,
): AdmissionRequest {
  const { context, row, subresource, namespace, name, dryRun, write } = target;
  const { server, user } = context;
  const warn = (text: string) => void context.warnings.push(text);
  const about = { row, subresource, namespace, name: name || (object?.metadata.name ?? '') };
  return { server, operation, ...about, user, object, oldObject, dryRun, write, warn };
}

/** A new object on its way from the client's draft to what is stored; the draft is used up. */
export function completeCreation(target: WriteTarget, draft: KubeObject): KubeObject {
  const { context, row } = target;
  const strategy = strategyOf(row);
  const hooks = hookContext(target);
  const { schema } = context.server;
  let object = cloneObject(applyDefaults(row, draft, schema));
  const admission = admissionRequest(target, 'CREATE', object, undefined);
  context.server.admission.mutate(admission);
  if (strategy.hasGeneration) object.metadata.generation = 1;
  if (hasStatus(row) && !strategy.keepsStatusOnCreate) object.status = {};
  strategy.prepareCreate?.(object, hooks);
  object = applyDefaults(row, object, schema);
  refuse(row, object, validateCreate(row, object, schema));
  context.server.admission.validate({ ...admission, object });
  return object;
}

/**
 * The transform of an update. `makeDraft` gives what the client wants, made from the current
 * object; it is called anew each time, and its result is used up.
 */
export function updateTransform(
  target: WriteTarget,
  makeDraft: (current: KubeObject) => KubeObject,
): Transform {
  return (entry) => {
    const { context, row, name } = target;
    if (!entry || !confined(confinementOf(context, row), entry)) {
      throw notFound(row.group, row.resource, name);
    }
    const old = objectOf(row, entry);
    const draft = makeDraft(old);
    checkLocks(target, draft, entry);
    const object = completeUpdate(target, draft, old);
    if (isUnchanged(object, old)) return undefined;
    if (isReleased(row, object)) return DELETE;
    return toStorage(target.context.server.schema, row, object);
  };
}

/** The optimistic lock, and the identity of what the client believes to update. */
function checkLocks(target: WriteTarget, draft: KubeObject, entry: Entry): void {
  const { row, name } = target;
  const { resourceVersion, uid } = draft.metadata;
  if (uid && uid !== entry.object.metadata.uid) {
    const why =
      `Precondition failed: UID in precondition: ${uid}, ` +
      `UID in object meta: ${entry.object.metadata.uid}`;
    throw conflict(row.group, row.resource, name, why);
  }
  if (!resourceVersion || resourceVersion === '0') {
    if (!strategyOf(row).needsResourceVersion) return;
    const message = 'Invalid value: 0: must be specified for an update';
    const cause = { reason: 'FieldValueInvalid', field: 'metadata.resourceVersion', message };
    throw invalid(row.group, row.kind, name, [cause]);
  }
  if (resourceVersion === String(entry.revision)) return;
  const why =
    'the object has been modified; please apply your changes to the latest version and try again';
  throw conflict(row.group, row.resource, name, why);
}

function completeUpdate(target: WriteTarget, wanted: KubeObject, old: KubeObject): KubeObject {
  const { context, row, subresource } = target;
  const strategy = strategyOf(row);
  const hooks = hookContext(target);
  const { schema } = context.server;
  let object = isolate(row, subresource, cloneObject(applyDefaults(row, wanted, schema)), old);
  keepMetadata(object, old);
  const admission = admissionRequest(target, 'UPDATE', object, old);
  context.server.admission.mutate(admission);
  if (subresource !== 'status') strategy.prepareUpdate?.(object, old, hooks);
  object = applyDefaults(row, object, schema);
  const causes = [...finalizerCauses(object, old), ...immutableCauses(row, object, old)];
  const rules = strategy.subresourceRules?.[subresource];
  const before = rules ? { ...old, spec: object.spec } : old;
  causes.push(...(rules?.(object, old) ?? []), ...validateUpdate(row, object, before, schema));
  refuse(row, object, causes);
  if (strategy.hasGeneration && isSpecChanged(object, old)) {
    object.metadata = { ...object.metadata, generation: (old.metadata.generation ?? 0) + 1 };
  }
  context.server.admission.validate({ ...admission, object });
  return object;
}

/**
 * A write of the status changes the status alone, and one of the object everything but it. The
 * drafts of other subresources are the server's own work.
 */
function isolate(
  row: ResourceRow,
  subresource: string,
  draft: KubeObject,
  old: KubeObject,
): KubeObject {
  if (subresource !== 'status') {
    if (subresource !== '' || !hasStatus(row)) return draft;
    if (old.status === undefined) delete draft.status;
    else draft.status = old.status;
    return draft;
  }
  const metadata = { ...old.metadata };
  if (strategyOf(row).statusWritesMetadata) {
    metadata.labels = draft.metadata.labels;
    metadata.annotations = draft.metadata.annotations;
    metadata.finalizers = draft.metadata.finalizers;
    for (const field of ['labels', 'annotations', 'finalizers'] as const) {
      if (metadata[field] === undefined) delete metadata[field];
    }
  }
  return { ...cloneObject(old), metadata, status: draft.status ?? {} };
}

function hasStatus(row: ResourceRow): boolean {
  return row.subresources.some((subresource) => subresource.name === 'status');
}

function finalizerCauses(object: KubeObject, old: KubeObject): StatusCause[] {
  if (!old.metadata.deletionTimestamp) return [];
  const known = new Set(old.metadata.finalizers ?? []);
  const added = (object.metadata.finalizers ?? []).filter((finalizer) => !known.has(finalizer));
  if (added.length === 0) return [];
  const list = added.map((finalizer) => JSON.stringify(finalizer)).join(', ');
  const message =
    'Forbidden: no new finalizers can be added if the object is being deleted, ' +
    `found new finalizers []string{${list}}`;
  return [{ reason: 'FieldValueForbidden', field: 'metadata.finalizers', message }];
}

function immutableCauses(row: ResourceRow, object: KubeObject, old: KubeObject): StatusCause[] {
  const causes: StatusCause[] = [];
  for (const path of strategyOf(row).immutable ?? []) {
    const before = at(old, path);
    const after = at(object, path);
    if (isDeepStrictEqual(before, after)) continue;
    const message = `Invalid value: ${JSON.stringify(after) ?? 'null'}: field is immutable`;
    causes.push({ reason: 'FieldValueInvalid', field: path, message });
  }
  return causes;
}

function at(object: unknown, path: string): unknown {
  let value = object;
  for (const part of path.split('.'))
    value = (value as Record<string, unknown> | undefined)?.[part];
  return value;
}

function isSpecChanged(object: KubeObject, old: KubeObject): boolean {
  const { metadata: _, status: __, ...spec } = object;
  const { metadata: ___, status: ____, ...oldSpec } = old;
  return !isDeepStrictEqual(spec, oldSpec);
}

/** The resourceVersion is the store's: it is no difference. */
export function isUnchanged(object: KubeObject, old: KubeObject): boolean {
  const { resourceVersion: _, ...metadata } = object.metadata;
  const { resourceVersion: __, ...oldMetadata } = old.metadata;
  return isDeepStrictEqual({ ...object, metadata }, { ...old, metadata: oldMetadata });
}

/** An object that was only waiting for this write goes with it: its last finalizer is gone. */
function isReleased(row: ResourceRow, object: KubeObject): boolean {
  const { deletionTimestamp, deletionGracePeriodSeconds, finalizers } = object.metadata;
  if (!deletionTimestamp || (deletionGracePeriodSeconds ?? 0) > 0) return false;
  return (finalizers ?? []).length === 0 && !strategyOf(row).isHeld?.(object);
}

function refuse(row: ResourceRow, object: KubeObject, causes: StatusCause[]): void {
  if (causes.length === 0) return;
  throw invalid(row.group, row.kind, object.metadata.name ?? '', causes);
}
