import { rfc3339 } from '../../base/clock.ts';
import type { KubeObject } from '../../api/object.ts';
import { conflict, invalid, isStatus, notFound } from '../../api/status.ts';
import type { StatusCause } from '../../api/status.ts';
import { decodeBody } from '../../api/schema/decode.ts';
import { DELETE } from '../../store/store.ts';
import type { Entry, Transform } from '../../store/store.ts';
import { readBody } from '../codec/body.ts';
import { optionType, checkStructure } from '../codec/decode.ts';
import { negotiate } from '../codec/negotiate.ts';
import { successStatus, valueReply } from '../codec/reply.ts';
import type { ResourceContext } from '../context.ts';
import { confined, confinementOf } from '../tenancy/confinement.ts';
import type { ApiReply } from '../server/exchange.ts';
import { writtenReply } from './create.ts';
import { listReply, select } from './list.ts';
import { parseListOptions } from './list-options.ts';
import { bytesOf, cloneObject, keyOf, objectOf, toStorage } from './resource.ts';
import { strategyOf } from './strategy.ts';
import type { PropagationPolicy, Strategy } from './strategy.ts';
import { admissionRequest, isUnchanged, parseDryRun } from './write.ts';
import type { WriteTarget } from './write.ts';

export interface DeleteOptions {
  gracePeriodSeconds?: number;
  propagationPolicy?: PropagationPolicy;
  orphanDependents?: boolean;
  preconditions?: { uid?: string; resourceVersion?: string };
  dryRun?: string[];
}

const POLICIES = new Set(['Background', 'Foreground', 'Orphan']);
/** Longer ones, of which pods may dream, would be beyond what a timestamp can say. */
const GRACE_SECONDS_MAX = 2 ** 31 - 1;
const ORPHAN = 'orphan';
const FOREGROUND = 'foregroundDeletion';

/** DELETE of one object. */
export async function handleDelete(context: ResourceContext): Promise<ApiReply> {
  const { row, info, exchange } = context;
  const representation = negotiate(exchange.headers.accept);
  const options = await readDeleteOptions(context);
  const namespace = row.namespaced ? info.namespace : '';
  const dryRun = parseDryRun(options.dryRun ?? []);
  const target = { context, row, subresource: '', namespace, name: info.name, dryRun };
  const { propagationWarning } = strategyOf(row);
  if (propagationWarning && !policyOf(options)) context.warnings.push(propagationWarning);
  const { entry, deleted } = await deleteObject(target, options);
  if (deleted && !strategyOf(row).returnsDeletedObject) {
    const { uid = '' } = entry.object.metadata;
    const details = { name: info.name, ...(row.group ? { group: row.group } : {}) };
    const status = successStatus({ ...details, kind: row.resource, uid });
    return valueReply(200, status, representation);
  }
  const written = { object: objectOf(row, entry), bytes: bytesOf(row, entry) };
  return writtenReply(context, 200, written, representation);
}

/** DELETE of what a list with the same query would show. Answers with that list. */
export async function handleDeleteCollection(context: ResourceContext): Promise<ApiReply> {
  const { row, exchange, server } = context;
  const representation = negotiate(exchange.headers.accept);
  const options = await readDeleteOptions(context);
  const dryRun = parseDryRun(options.dryRun ?? []);
  const selected = await select(context, parseListOptions(exchange.query, false));
  const queue = [...selected.entries].reverse();
  const work = async () => {
    for (let entry = queue.pop(); entry; entry = queue.pop()) {
      const { namespace, name } = entry.key;
      const target = { context, row, subresource: '', namespace, name, dryRun };
      // One that was replaced since the list is not the one that was meant.
      const preconditions = { ...options.preconditions, uid: entry.object.metadata.uid };
      try {
        await deleteObject(target, { ...options, preconditions });
      } catch (error) {
        if (!isStatus(error, 'NotFound') && !isStatus(error, 'Conflict')) throw error;
      }
    }
  };
  const workers = Math.min(server.limits.deleteCollectionWorkers, selected.entries.length);
  await Promise.all(Array.from({ length: workers }, work));
  return listReply(context, selected, representation);
}

/** From the body where there is one, else from the query; both are in use. */
async function readDeleteOptions(context: ResourceContext): Promise<DeleteOptions> {
  const { server, exchange } = context;
  const bytes = await readBody(exchange, server.limits, server.clock);
  const options = bytes.length > 0 ? bodyOptions(context, bytes) : queryOptions(exchange.query);
  const causes = optionCauses(options);
  if (causes.length > 0) throw invalid('meta.k8s.io', 'DeleteOptions', '', causes);
  return options;
}

function bodyOptions(context: ResourceContext, bytes: Uint8Array): DeleteOptions {
  const { server, exchange } = context;
  const expected = optionType(server.schema, '', 'v1', 'DeleteOptions');
  const decoded = decodeBody(exchange.headers['content-type'], bytes, {
    table: server.schema,
    expectedKind: expected.kind,
    // kubectl sends options without saying what they are.
    defaults: { apiVersion: 'v1', kind: expected.kind },
  });
  return checkStructure(context, expected, decoded.value, decoded.duplicates) as DeleteOptions &
    KubeObject;
}

function queryOptions(query: URLSearchParams): DeleteOptions {
  const grace = query.get('gracePeriodSeconds');
  const policy = query.get('propagationPolicy');
  const orphan = query.get('orphanDependents');
  return {
    ...(grace ? { gracePeriodSeconds: Number(grace) } : {}),
    ...(policy ? { propagationPolicy: policy as PropagationPolicy } : {}),
    ...(orphan === null ? {} : { orphanDependents: orphan === 'true' }),
    dryRun: query.getAll('dryRun'),
  };
}

function optionCauses(options: DeleteOptions): StatusCause[] {
  const { gracePeriodSeconds: grace, propagationPolicy: policy, orphanDependents } = options;
  const causes: StatusCause[] = [];
  const add = (field: string, message: string) => {
    causes.push({ reason: 'FieldValueInvalid', field, message: `Invalid value: ${message}` });
  };
  if (grace !== undefined && !Number.isInteger(grace)) {
    add('gracePeriodSeconds', `${JSON.stringify(grace)}: must be an integer`);
  }
  if (policy !== undefined && orphanDependents !== undefined) {
    const why = 'orphanDependents and deletionPropagation cannot be both set';
    const message = `${JSON.stringify(policy)}: ${why}`;
    add('propagationPolicy', message);
  }
  if (policy !== undefined && !POLICIES.has(policy)) {
    const supported = [...POLICIES].map((one) => JSON.stringify(one)).join(', ');
    add('propagationPolicy', `${JSON.stringify(policy)}: supported values: ${supported}`);
  }
  return causes;
}

/** What is left of the object: its last state when it is gone, else how it waits to go. */
export async function deleteObject(
  target: WriteTarget,
  options: DeleteOptions,
): Promise<{ entry: Entry; deleted: boolean }> {
  const { context, row, namespace, name, dryRun } = target;
  const { server } = context;
  const key = keyOf(server.schema, row, namespace, name);
  const transform = deleteTransform(target, options);
  if (dryRun) {
    const current = server.store.get(key);
    const next = transform(current);
    if (!current) throw notFound(row.group, row.resource, name);
    const deleted = next === DELETE;
    return { entry: deleted || !next ? current : { ...current, object: next }, deleted };
  }
  const { entry, deleted } = await server.store.mutate(key, transform);
  if (!entry) throw notFound(row.group, row.resource, name);
  if (deleted) strategyOf(row).settle?.(entry.object.metadata.uid ?? '', undefined, server);
  return { entry, deleted };
}

function deleteTransform(target: WriteTarget, options: DeleteOptions): Transform {
  return (entry) => {
    const { context, row, name } = target;
    const { server } = context;
    if (!entry || !confined(confinementOf(context, row), entry)) {
      throw notFound(row.group, row.resource, name);
    }
    checkPreconditions(target, options, entry);
    const old = objectOf(row, entry);
    server.admission.validate(admissionRequest(target, 'DELETE', undefined, old));
    const strategy = strategyOf(row);
    const draft = cloneObject(old);
    setFinalizers(draft, finalizersFor(draft, options, strategy));
    const grace = strategy.graceSeconds?.(draft, options.gracePeriodSeconds);
    const isFinal = markDeleted(draft, strategy, options, grace, server.clock.nowMs());
    if (isFinal && !draft.metadata.finalizers?.length && !strategy.isHeld?.(draft)) return DELETE;
    if (isUnchanged(draft, old)) return undefined;
    return toStorage(server.schema, row, draft);
  };
}

function checkPreconditions(target: WriteTarget, options: DeleteOptions, entry: Entry): void {
  const { row, name } = target;
  const { uid, resourceVersion } = options.preconditions ?? {};
  const { metadata } = entry.object;
  const refuse = (what: string, wanted: string, found: string | undefined): never => {
    const why =
      `Precondition failed: ${what} in precondition: ${wanted}, ` +
      `${what} in object meta: ${found}`;
    throw conflict(row.group, row.resource, name, why);
  };
  if (uid && uid !== metadata.uid) refuse('UID', uid, metadata.uid);
  if (resourceVersion && resourceVersion !== metadata.resourceVersion) {
    refuse('ResourceVersion', resourceVersion, metadata.resourceVersion);
  }
}

/** What the garbage collector is to do with dependents is kept as a finalizer. */
function finalizersFor(object: KubeObject, options: DeleteOptions, strategy: Strategy): string[] {
  const current = object.metadata.finalizers ?? [];
  const others = current.filter((one) => one !== ORPHAN && one !== FOREGROUND);
  const policy = policyOf(options);
  if (policy === 'Orphan') return [...others, ORPHAN];
  if (policy === 'Foreground') return [...others, FOREGROUND];
  if (policy === 'Background') return others;
  if (others.length < current.length) return current;
  return strategy.defaultPropagation === 'Orphan' ? [...current, ORPHAN] : current;
}

function policyOf(options: DeleteOptions): PropagationPolicy | undefined {
  if (options.propagationPolicy) return options.propagationPolicy;
  if (options.orphanDependents === undefined) return undefined;
  return options.orphanDependents ? 'Orphan' : 'Background';
}

function setFinalizers(draft: KubeObject, finalizers: string[]): void {
  if (finalizers.length > 0) draft.metadata.finalizers = finalizers;
  else delete draft.metadata.finalizers;
}

/** @returns whether nobody has to end the object's work before it goes */
function markDeleted(
  draft: KubeObject,
  strategy: Strategy,
  options: DeleteOptions,
  graceSeconds: number | undefined,
  nowMs: number,
): boolean {
  const { metadata } = draft;
  const current = metadata.deletionGracePeriodSeconds ?? 0;
  if (metadata.deletionTimestamp) {
    const isShorter = graceSeconds !== undefined && graceSeconds < current;
    // Once on its way a deletion can be hurried, never put off; asking again is no hurry.
    if (!isShorter || options.gracePeriodSeconds === undefined) return current === 0;
    const deletedMs = Date.parse(metadata.deletionTimestamp) - (current - graceSeconds) * 1000;
    metadata.deletionTimestamp = rfc3339(deletedMs);
    metadata.deletionGracePeriodSeconds = graceSeconds;
    return graceSeconds === 0;
  }
  const seconds = Math.min(graceSeconds ?? 0, GRACE_SECONDS_MAX);
  metadata.deletionTimestamp = rfc3339(nowMs + seconds * 1000);
  metadata.deletionGracePeriodSeconds = seconds;
  if (metadata.generation) metadata.generation += 1;
  strategy.markDeleted?.(draft);
  return seconds === 0;
}
