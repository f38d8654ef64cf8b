import { isDeepStrictEqual } from 'node:util';
import type { KubeObject } from '../../api/object.ts';
import { isStatus } from '../../api/status.ts';
import type { ControllerRevision, Pod, PodTemplateSpec } from '../../api/types.generated.ts';
import { CONTROLLER_REVISIONS } from '../../client/resources.ts';
import type { Resource } from '../../client/resources.ts';
import type { ControllerContext } from './context.ts';
import { claim, controllerOf, controllerReference } from './ownership.ts';
import { normalize, templateHash } from './template-hash.ts';

/** On pods and revisions alike: which revision of the template it is. */
export const REVISION_HASH_LABEL = 'controller-revision-hash';
const DEFAULT_HISTORY_LIMIT = 10;

/** A workload whose templates are kept as ControllerRevisions. */
export interface Revised extends KubeObject {
  spec?: {
    selector: { matchLabels?: Record<string, string> };
    template: PodTemplateSpec;
    revisionHistoryLimit?: number;
  };
  status?: { collisionCount?: number };
}

export const hashOf = ({ metadata }: Pod | ControllerRevision): string | undefined =>
  metadata.labels?.[REVISION_HASH_LABEL];

/** What `kubectl rollout undo` applies to the workload: the template as a patch that replaces. */
function patchOf(template: PodTemplateSpec): unknown {
  return { spec: { template: { ...template, $patch: 'replace' } } };
}

/** The template that a revision holds, undefined when it is not one of ours. */
export function templateOf({ data }: ControllerRevision): PodTemplateSpec | undefined {
  const { spec } = (data ?? {}) as { spec?: { template?: PodTemplateSpec & { $patch?: string } } };
  if (!spec?.template) return undefined;
  const { $patch: _directive, ...template } = spec.template;
  return template;
}

/** The revisions of a workload, oldest first, adopted where they have no owner. */
export async function listRevisions<T extends Revised>(
  { client, informers }: ControllerContext,
  ownerResource: Resource<T>,
  owner: T,
): Promise<ControllerRevision[]> {
  const revisions = await claim({
    ...{ client, owner, ownerResource, selector: owner.spec?.selector },
    informer: informers.informer(CONTROLLER_REVISIONS),
  });
  return revisions.sort((a, b) => a.revision - b.revision);
}

/**
 * The revision of the present template: made when it is new, and put last when it is an old one
 * that is taken up again.
 *
 * @returns undefined when the name was taken by something else; `status.collisionCount` was
 *   raised, and the next try has a new name
 */
export async function currentRevision<T extends Revised>(
  { client }: ControllerContext,
  ownerResource: Resource<T>,
  owner: T,
  revisions: ControllerRevision[],
): Promise<ControllerRevision | undefined> {
  const template = owner.spec?.template ?? {};
  const wanted = normalize(template);
  const isSame = (one: ControllerRevision) => isDeepStrictEqual(normalize(templateOf(one)), wanted);
  const found = revisions.findLast(isSame);
  const last = revisions.at(-1);
  const next = (last?.revision ?? 0) + 1;
  if (found && found === last) return found;
  if (found) return client.update(CONTROLLER_REVISIONS, { ...found, revision: next });
  const hash = templateHash(template, owner.status?.collisionCount);
  const { namespace, name: ownerName } = owner.metadata;
  const name = `${ownerName}-${hash}`;
  try {
    return await client.create(CONTROLLER_REVISIONS, {
      apiVersion: 'apps/v1',
      kind: 'ControllerRevision',
      metadata: {
        ...{ name, namespace },
        labels: { ...template.metadata?.labels, [REVISION_HASH_LABEL]: hash },
        ...(owner.metadata.annotations ? { annotations: keptAnnotations(owner) } : {}),
        ownerReferences: [controllerReference(ownerResource, owner)],
      },
      data: patchOf(template),
      revision: next,
    });
  } catch (error) {
    if (!isStatus(error, 'AlreadyExists')) throw error;
  }
  const existing = await client.get(CONTROLLER_REVISIONS, { namespace, name });
  // Made by an earlier step whose echo has not arrived.
  if (controllerOf(existing)?.uid === owner.metadata.uid && isSame(existing)) return existing;
  const collisionCount = (owner.status?.collisionCount ?? 0) + 1;
  await client.updateStatus(ownerResource, {
    ...owner,
    status: { ...owner.status, collisionCount },
  });
  return undefined;
}

/** The change-cause of `kubectl rollout history`, but no copy of the whole object. */
function keptAnnotations({ metadata }: KubeObject): Record<string, string> {
  const { 'kubectl.kubernetes.io/last-applied-configuration': _copy, ...kept } =
    metadata.annotations ?? {};
  return kept;
}

/** Deletes the oldest revisions beyond the limit, of those that are not in use. */
export async function trimRevisions(
  { client }: ControllerContext,
  owner: Revised,
  revisions: ControllerRevision[],
  isUsed: (revision: ControllerRevision) => boolean,
): Promise<void> {
  const idle = revisions.filter((revision) => !isUsed(revision));
  const limit = owner.spec?.revisionHistoryLimit ?? DEFAULT_HISTORY_LIMIT;
  for (const { metadata } of idle.slice(0, Math.max(0, idle.length - limit))) {
    const { namespace, name = '', uid } = metadata;
    try {
      await client.delete(CONTROLLER_REVISIONS, { namespace, name }, { uid });
    } catch (error) {
      if (!isStatus(error, 'NotFound')) throw error;
    }
  }
}
