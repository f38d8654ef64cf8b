import type { KubeObject, OwnerReference } from '../../api/object.ts';
import { matchesLabelSelector } from '../../api/selectors.ts';
import type { LabelSelectorObject } from '../../api/selectors.ts';
import { isStatus } from '../../api/status.ts';
import type { Client } from '../../client/client.ts';
import type { Informer } from '../../client/informer.ts';
import { apiVersionOf } from '../../client/resources.ts';
import type { Resource } from '../../client/resources.ts';

const CONTROLLER_INDEX = 'controller';

export function controllerOf({ metadata }: KubeObject): OwnerReference | undefined {
  return metadata.ownerReferences?.find((reference) => reference.controller);
}

export function controllerReference(resource: Resource, owner: KubeObject): OwnerReference {
  return {
    apiVersion: apiVersionOf(resource),
    kind: resource.kind,
    name: owner.metadata.name ?? '',
    uid: owner.metadata.uid ?? '',
    controller: true,
    blockOwnerDeletion: true,
  };
}

/** Lets `owned` and `claim` find objects by their controller, and those without one. */
export function indexByController<T extends KubeObject>(informer: Informer<T>): void {
  informer.addIndex(CONTROLLER_INDEX, (object) => [
    controllerOf(object)?.uid ?? orphansOf(object.metadata.namespace),
  ]);
}

const orphansOf = (namespace: string | undefined) => `orphans of ${namespace ?? ''}`;

export function owned<T extends KubeObject>(informer: Informer<T>, uid: string | undefined): T[] {
  return uid ? informer.byIndex(CONTROLLER_INDEX, uid) : [];
}

/** Objects of a namespace that have no controller. */
export function orphans<T extends KubeObject>(
  informer: Informer<T>,
  namespace: string | undefined,
): T[] {
  return informer.byIndex(CONTROLLER_INDEX, orphansOf(namespace));
}

export interface ClaimOptions<O extends KubeObject, T extends KubeObject> {
  client: Client;
  owner: O;
  ownerResource: Resource<O>;
  selector: LabelSelectorObject | undefined;
  informer: Informer<T>;
  /** Of the orphans only these are adopted. */
  mayAdopt?: (object: T) => boolean;
  /** What is adopted gets this finalizer too, and what is released loses it. */
  finalizer?: string;
}

/**
 * The objects an owner controls after it has adopted the orphans that its selector matches and
 * released what it no longer matches. An owner that is being deleted does neither.
 */
export async function claim<O extends KubeObject, T extends KubeObject>(
  options: ClaimOptions<O, T>,
): Promise<T[]> {
  const { client, owner, ownerResource, selector, informer, finalizer } = options;
  const mayAdopt = options.mayAdopt ?? (() => true);
  const { resource } = informer;
  const isEnding = owner.metadata.deletionTimestamp !== undefined;
  const claimed: T[] = [];
  for (const object of owned(informer, owner.metadata.uid)) {
    if (matchesLabelSelector(selector, object.metadata.labels)) claimed.push(object);
    else if (!isEnding) await release(options, object);
  }
  if (isEnding) return claimed;
  const candidates = orphans(informer, owner.metadata.namespace).filter(
    (object) =>
      !object.metadata.deletionTimestamp &&
      matchesLabelSelector(selector, object.metadata.labels) &&
      mayAdopt(object),
  );
  if (candidates.length && !(await isStillThere(client, ownerResource, owner))) return claimed;
  for (const object of candidates) {
    const reference = controllerReference(ownerResource, owner);
    const { ownerReferences = [], finalizers = [] } = object.metadata;
    const adopted = await setOwners(client, resource, object, {
      ownerReferences: [...ownerReferences, reference],
      ...(finalizer ? { finalizers: [...new Set([...finalizers, finalizer])] } : {}),
    });
    if (adopted) claimed.push(adopted);
  }
  return claimed;
}

/** Asked of the server: the informer may not know yet that the owner is going. */
async function isStillThere<O extends KubeObject>(
  client: Client,
  resource: Resource<O>,
  owner: O,
): Promise<boolean> {
  const { namespace, name = '' } = owner.metadata;
  try {
    const { metadata } = await client.get(resource, { namespace, name });
    return metadata.uid === owner.metadata.uid && !metadata.deletionTimestamp;
  } catch (error) {
    if (isStatus(error, 'NotFound')) return false;
    throw error;
  }
}

async function release<O extends KubeObject, T extends KubeObject>(
  { client, informer, owner, finalizer }: ClaimOptions<O, T>,
  object: T,
): Promise<void> {
  const { ownerReferences = [], finalizers = [] } = object.metadata;
  await setOwners(client, informer.resource, object, {
    ownerReferences: ownerReferences.filter(({ uid }) => uid !== owner.metadata.uid),
    ...(finalizer ? { finalizers: finalizers.filter((one) => one !== finalizer) } : {}),
  });
}

/** @returns undefined when the object is gone or is another one by now */
async function setOwners<T extends KubeObject>(
  client: Client,
  resource: Resource<T>,
  object: T,
  links: { ownerReferences: OwnerReference[]; finalizers?: string[] },
): Promise<T | undefined> {
  const { namespace, name = '', uid, resourceVersion } = object.metadata;
  const patch = { metadata: { uid, resourceVersion, ...links } };
  try {
    return await client.patch(resource, { namespace, name }, 'merge', patch);
  } catch (error) {
    if (isStatus(error, 'NotFound') || isStatus(error, 'Invalid')) return undefined;
    throw error;
  }
}
