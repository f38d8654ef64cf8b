import { handleTenantAudit } from '../../audit/handler.ts';
import { handleTenantUsage } from '../../usage/handler.ts';
import { handleConnect, handleLog, handleNodeProxy } from '../../proxy/handlers.ts';
import type { ResourceHandler } from '../../context.ts';
import { handleGet } from '../get.ts';
import { handleAbsent } from './absent.ts';
import { handleBinding } from './binding.ts';
import { handleEviction } from './eviction.ts';
import { handleFinalize, patchApproval, updateApproval } from './finalize.ts';
import { reviews } from './review.ts';
import { resizeVerbs } from './resize.ts';
import { scaleVerbs } from './scale.ts';
import { handleToken } from './token.ts';

type Verbs = Record<string, ResourceHandler>;

const stream: Verbs = { get: handleConnect, create: handleConnect };
const absent: Verbs = { get: handleAbsent, update: handleAbsent, patch: handleAbsent };
const nodeProxy: Verbs = {
  get: handleNodeProxy,
  create: handleNodeProxy,
  update: handleNodeProxy,
  patch: handleNodeProxy,
  delete: handleNodeProxy,
};

/**
 * Subresources with a meaning of their own, by `resource.group/subresource`. Those that are in
 * discovery and not here, or lack a verb here, are answered with 405.
 */
export const SUBRESOURCES: Record<string, Verbs | undefined> = {
  'pods/binding': { create: handleBinding },
  'pods/eviction': { create: handleEviction },
  'pods/ephemeralcontainers': absent,
  'pods/resize': resizeVerbs,
  'pods/log': { get: handleLog },
  'pods/exec': stream,
  'pods/attach': stream,
  'pods/portforward': stream,
  'nodes/proxy': nodeProxy,
  'namespaces/finalize': { update: handleFinalize },
  'serviceaccounts/token': { create: handleToken },
  'tenants.hypernetes.io/audit': { get: handleTenantAudit },
  'tenants.hypernetes.io/usage': { get: handleTenantUsage },
  'replicationcontrollers/scale': scaleVerbs,
  'deployments.apps/scale': scaleVerbs,
  'replicasets.apps/scale': scaleVerbs,
  'statefulsets.apps/scale': scaleVerbs,
  'certificatesigningrequests.certificates.k8s.io/approval': {
    get: handleGet,
    update: updateApproval,
    patch: patchApproval,
  },
};

/** Resources that are answered and not stored. */
export const VIRTUAL_RESOURCES: Record<string, Verbs | undefined> = {
  bindings: { create: handleBinding },
  ...Object.fromEntries(Object.entries(reviews).map(([name, create]) => [name, { create }])),
};
