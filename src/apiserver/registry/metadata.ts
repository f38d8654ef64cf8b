import { rfc3339 } from '../../base/clock.ts';
import { nameSuffix } from '../../base/random.ts';
import type { KubeObject, ObjectMeta } from '../../api/object.ts';
import { badRequest } from '../../api/status.ts';
import type { ServerContext } from '../context.ts';

/** Generated names are cut so that with their suffix they fit into a DNS label. */
const GENERATED_PREFIX_LENGTH_MAX = 58;

/** The metadata of a new object: what the server sets, and nothing of what it alone may set. */
export function prepareMetadata(server: ServerContext, draft: KubeObject, namespace: string): void {
  const metadata = withoutServerFields(draft.metadata);
  if (metadata.resourceVersion) {
    throw badRequest('resourceVersion should not be set on objects to be created');
  }
  delete metadata.resourceVersion;
  if (namespace) metadata.namespace = namespace;
  else delete metadata.namespace;
  if (!metadata.name && metadata.generateName) {
    const prefix = metadata.generateName.slice(0, GENERATED_PREFIX_LENGTH_MAX);
    metadata.name = `${prefix}${nameSuffix(server.random)}`;
  }
  metadata.uid = server.random.uuid();
  metadata.creationTimestamp = rfc3339(server.clock.nowMs());
  draft.metadata = metadata;
}

/** On updates the server's own fields stay as they are, whatever the client sends. */
export function keepMetadata(draft: KubeObject, old: KubeObject): void {
  const metadata = withoutServerFields(draft.metadata);
  const kept: (keyof ObjectMeta)[] = [
    'name',
    'namespace',
    'uid',
    'generateName',
    'creationTimestamp',
    'deletionTimestamp',
    'deletionGracePeriodSeconds',
    'generation',
    'resourceVersion',
  ];
  const target = metadata as Record<string, unknown>;
  for (const field of kept) {
    if (old.metadata[field] === undefined) delete target[field];
    else target[field] = old.metadata[field];
  }
  draft.metadata = metadata;
}

function withoutServerFields(metadata: ObjectMeta): ObjectMeta {
  const copy = { ...metadata } as ObjectMeta & { selfLink?: string };
  delete copy.managedFields;
  delete copy.selfLink;
  delete copy.generation;
  delete copy.deletionTimestamp;
  delete copy.deletionGracePeriodSeconds;
  return copy;
}

/** A namespace or name in the body has to be that of the URL. */
export function checkIdentity(object: KubeObject, namespace: string, name: string): void {
  const { metadata } = object;
  if (metadata.namespace && metadata.namespace !== namespace) {
    throw badRequest(
      namespace
        ? 'the namespace of the provided object does not match the namespace sent on the request'
        : 'namespace may not be set on cluster-scoped objects',
    );
  }
  if (name && metadata.name && metadata.name !== name) {
    throw badRequest(
      `the name of the object (${metadata.name}) does not match the name on the URL (${name})`,
    );
  }
}
