import type { Strategy } from '../strategy.ts';
import { certificateSigningRequestStrategy } from './certificates.ts';
import { jobStrategy } from './job.ts';
import { namespaceStrategy } from './namespace.ts';
import { podStrategy } from './pod.ts';
import { secretStrategy } from './secret.ts';
import { serviceStrategy } from './service.ts';

const LOCKED: Strategy = { needsResourceVersion: true };
const COUNTED: Strategy = { hasGeneration: true };
const UPSERTED: Strategy = { allowsCreateOnUpdate: true };

const PENDING: Strategy = {
  prepareCreate: (draft) => void (draft.status = { phase: 'Pending' }),
};

/** Kinds that differ from the rule, by `resource.group`. A kind that is not here is plain. */
export const STRATEGIES: Record<string, Strategy | undefined> = {
  endpoints: UPSERTED,
  events: UPSERTED,
  limitranges: UPSERTED,
  namespaces: namespaceStrategy,
  nodes: { keepsStatusOnCreate: true, statusWritesMetadata: true },
  persistentvolumeclaims: { ...PENDING, returnsDeletedObject: true, statusWritesMetadata: true },
  persistentvolumes: { ...PENDING, returnsDeletedObject: true },
  pods: podStrategy,
  podtemplates: { hasGeneration: true, returnsDeletedObject: true },
  replicationcontrollers: { hasGeneration: true, defaultPropagation: 'Orphan' },
  resourcequotas: { allowsCreateOnUpdate: true, returnsDeletedObject: true },
  secrets: secretStrategy,
  serviceaccounts: { returnsDeletedObject: true },
  services: serviceStrategy,
  'controllerrevisions.apps': { immutable: ['data'] },
  'daemonsets.apps': COUNTED,
  'deployments.apps': COUNTED,
  'replicasets.apps': COUNTED,
  'statefulsets.apps': COUNTED,
  'customresourcedefinitions.apiextensions.k8s.io': { ...LOCKED, ...COUNTED },
  'apiservices.apiregistration.k8s.io': LOCKED,
  'mutatingwebhookconfigurations.admissionregistration.k8s.io': COUNTED,
  'validatingwebhookconfigurations.admissionregistration.k8s.io': COUNTED,
  'validatingadmissionpolicies.admissionregistration.k8s.io': COUNTED,
  'validatingadmissionpolicybindings.admissionregistration.k8s.io': COUNTED,
  'cronjobs.batch': COUNTED,
  'jobs.batch': jobStrategy,
  'certificatesigningrequests.certificates.k8s.io': certificateSigningRequestStrategy,
  'tenants.hypernetes.io': { ...COUNTED, immutable: ['spec.parent'] },
  'leases.coordination.k8s.io': { ...UPSERTED, ...LOCKED },
  'endpointslices.discovery.k8s.io': COUNTED,
  'events.events.k8s.io': UPSERTED,
  'flowschemas.flowcontrol.apiserver.k8s.io': COUNTED,
  'prioritylevelconfigurations.flowcontrol.apiserver.k8s.io': COUNTED,
  'ingressclasses.networking.k8s.io': COUNTED,
  'ingresses.networking.k8s.io': COUNTED,
  'networkpolicies.networking.k8s.io': COUNTED,
  'ipaddresses.networking.k8s.io': { immutable: ['spec.parentRef'] },
  'runtimeclasses.node.k8s.io': LOCKED,
  'poddisruptionbudgets.policy': { ...LOCKED, ...COUNTED },
  'clusterrolebindings.rbac.authorization.k8s.io': UPSERTED,
  'clusterroles.rbac.authorization.k8s.io': UPSERTED,
  'rolebindings.rbac.authorization.k8s.io': UPSERTED,
  'roles.rbac.authorization.k8s.io': UPSERTED,
  'priorityclasses.scheduling.k8s.io': { ...COUNTED, immutable: ['preemptionPolicy'] },
  'csinodes.storage.k8s.io': LOCKED,
  'storageclasses.storage.k8s.io': {
    allowsCreateOnUpdate: true,
    immutable: ['volumeBindingMode'],
  },
  'volumeattachments.storage.k8s.io': LOCKED,
};
