import type { ObjectMeta } from '../../api/object.ts';
import { forbidden } from './chain.ts';
import type { AdmissionPlugin, ObjectAdmissionRequest } from './chain.ts';

/**
 * The garbage collector looks for owners and deletes what has none: by an owner outside of its
 * namespaces a tenant would find out what is there, and when it goes.
 */
export const tenantOwners: AdmissionPlugin = {
  name: 'TenantOwners',
  operations: ['CREATE', 'UPDATE'],
  mutate(request) {
    const { object, oldObject, user, server } = request;
    if (user.tenant === undefined) return;
    const known = new Set(ownersOf(oldObject?.metadata).map((owner) => JSON.stringify(owner)));
    for (const owner of ownersOf(object.metadata)) {
      if (known.has(JSON.stringify(owner))) continue;
      const row = server.schema.byKind(owner.apiVersion, owner.kind);
      if (!row || row.namespaced) continue;
      const why = `metadata.ownerReferences: a tenant's objects are not owned by a ${row.kind}`;
      throw forbidden(request, why);
    }
  },
};

const ownersOf = (metadata: ObjectMeta | undefined) => metadata?.ownerReferences ?? [];

interface Regarding {
  kind?: string;
  namespace?: string;
}

/** What an event is about is where the event is: nobody reads a stranger's words about his pods. */
export const tenantEvents: AdmissionPlugin = {
  name: 'TenantEvents',
  resources: ['events', 'events.events.k8s.io'],
  operations: ['CREATE', 'UPDATE'],
  mutate(request) {
    if (request.user.tenant === undefined) return;
    // The two groups call the same differently.
    for (const field of ['involvedObject', 'regarding', 'related']) checkPlace(request, field);
  },
};

function checkPlace(request: ObjectAdmissionRequest, field: string): void {
  const reference = request.object[field] as Regarding | undefined;
  if (!reference?.kind || reference.namespace === request.namespace) return;
  throw forbidden(request, `${field}.namespace: has to be that of the event`);
}
