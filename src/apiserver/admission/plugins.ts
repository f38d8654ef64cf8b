import {
  certificateSigners,
  certificateSubject,
  nodeRestriction,
  rbacEscalation,
} from './access.ts';
import type { AdmissionPlugin } from './chain.ts';
import { namespaceKernel, podKernel } from './kernel.ts';
import { limitRanger } from './limit-ranger.ts';
import { namespaceLifecycle } from './namespace-lifecycle.ts';
import {
  defaultStorageClass,
  defaultTolerationSeconds,
  priority,
  runtimeClass,
  taintNodesByCondition,
  timeline,
} from './pod-defaults.ts';
import { resourceQuota } from './resource-quota.ts';
import { serviceAccount } from './service-account.ts';
import {
  tenantPodSecurity,
  tenantRequests,
  tenantRuntimeClass,
  tenantSuspension,
} from './tenant-defaults.ts';
import { tenantDeletion } from './tenant-deletion.ts';
import { tenantGrants, tenantQuota, vmOverhead } from './tenant-quota.ts';
import { tenantEvents, tenantOwners } from './tenant-references.ts';
import { namespaceTenant, tenantPlace, tenantUse } from './tenancy.ts';

/** In the order in which they run. What others rely on comes first, what counts comes last. */
export function admissionPlugins(): AdmissionPlugin[] {
  return [
    namespaceLifecycle,
    namespaceTenant,
    tenantPodSecurity,
    tenantPlace,
    tenantOwners,
    tenantEvents,
    tenantDeletion,
    nodeRestriction,
    serviceAccount,
    taintNodesByCondition,
    priority,
    defaultTolerationSeconds,
    defaultStorageClass,
    tenantRuntimeClass,
    runtimeClass,
    podKernel,
    namespaceKernel,
    limitRanger,
    tenantRequests,
    tenantSuspension,
    timeline,
    tenantUse,
    rbacEscalation,
    certificateSigners,
    certificateSubject,
    vmOverhead,
    tenantGrants,
    resourceQuota,
    tenantQuota,
  ];
}
