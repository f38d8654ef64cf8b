import { rfc3339 } from '../../../base/clock.ts';
import type { KubeObject } from '../../../api/object.ts';
import { badRequest, conflict, invalid } from '../../../api/status.ts';
import { optionType, readObject } from '../../codec/decode.ts';
import { jsonReply } from '../../codec/reply.ts';
import type { ResourceContext } from '../../context.ts';
import type { ApiReply } from '../../server/exchange.ts';
import { checkIdentity } from '../metadata.ts';
import { cloneObject } from '../resource.ts';
import { podSpec } from '../strategies/pod.ts';
import { updateObject } from '../update.ts';
import { parseDryRun } from '../write.ts';

interface Condition {
  type: string;
  status: string;
  lastTransitionTime?: string;
}

/** POST of `pods/{name}/binding`: the scheduler's decision, taken once and for all. */
export async function handleBinding(context: ResourceContext): Promise<ApiReply> {
  const { server, info, exchange } = context;
  const expected = optionType(server.schema, '', 'v1', 'Binding');
  const binding = await readObject(context, expected);
  const name = info.name || (binding.metadata.name ?? '');
  checkIdentity(binding, info.namespace, info.name);
  const { kind = '', name: node = '' } = binding.target as { kind?: string; name?: string };
  if (!name) throw badRequest('the binding has no name: it has to name its pod');
  if (!node || (kind !== '' && kind !== 'Node')) {
    const message = node
      ? `Unsupported value: ${JSON.stringify(kind)}: supported values: "Node"`
      : 'Required value';
    const field = node ? 'target.kind' : 'target.name';
    throw invalid('', 'Binding', name, [{ reason: 'FieldValueInvalid', field, message }]);
  }
  const row = server.schema.byResource('', 'v1', 'pods') ?? context.row;
  const dryRun = parseDryRun(exchange.query.getAll('dryRun'));
  const target = { context, row, subresource: 'binding', namespace: info.namespace, name, dryRun };
  await updateObject(target, (pod) => bind(pod, binding, node, server.clock.nowMs()));
  const success = { kind: 'Status', apiVersion: 'v1', metadata: {}, status: 'Success', code: 201 };
  return jsonReply(201, success);
}

function bind(pod: KubeObject, binding: KubeObject, node: string, nowMs: number): KubeObject {
  const name = pod.metadata.name ?? '';
  const refuse = (why: string) => conflict('', 'pods/binding', name, why);
  const { uid, resourceVersion, annotations, labels } = binding.metadata;
  if (uid && uid !== pod.metadata.uid) {
    throw refuse(
      `Precondition failed: UID in precondition: ${uid}, UID in object meta: ${pod.metadata.uid}`,
    );
  }
  if (resourceVersion && resourceVersion !== pod.metadata.resourceVersion) {
    throw refuse('the object has been modified');
  }
  const spec = podSpec(pod);
  if (pod.metadata.deletionTimestamp)
    throw refuse(`pod ${name} is being deleted, cannot be assigned to a host`);
  if (spec.nodeName) throw refuse(`pod ${name} is already assigned to node "${spec.nodeName}"`);
  if (spec.schedulingGates?.length) throw refuse(`pod ${name} has non-empty .spec.schedulingGates`);
  const draft = cloneObject(pod);
  draft.spec = { ...spec, nodeName: node };
  if (annotations) draft.metadata.annotations = { ...draft.metadata.annotations, ...annotations };
  if (labels) draft.metadata.labels = { ...draft.metadata.labels, ...labels };
  draft.status = scheduledStatus(draft, nowMs);
  return draft;
}

function scheduledStatus(pod: KubeObject, nowMs: number): Record<string, unknown> {
  const status = (pod.status ?? {}) as { conditions?: Condition[] };
  const others = (status.conditions ?? []).filter(({ type }) => type !== 'PodScheduled');
  const lastTransitionTime = rfc3339(nowMs);
  const scheduled = { type: 'PodScheduled', status: 'True', lastTransitionTime };
  return { ...status, conditions: [...others, scheduled] };
}
