/** What no document says about a resource: short names, categories, odd singulars. */
export interface NameRow {
  shortNames?: string[];
  categories?: string[];
  /** The version in which all versions of the kind are kept, with its group. */
  storage?: { group: string; version: string };
}

const ALL = ['all'];
const EXTENSIONS = ['api-extensions'];

/** By `resource.group`, the core group's without a dot. */
export const NAMES: Record<string, NameRow> = {
  componentstatuses: { shortNames: ['cs'] },
  configmaps: { shortNames: ['cm'] },
  endpoints: { shortNames: ['ep'] },
  events: { shortNames: ['ev'] },
  limitranges: { shortNames: ['limits'] },
  namespaces: { shortNames: ['ns'] },
  nodes: { shortNames: ['no'] },
  persistentvolumeclaims: { shortNames: ['pvc'] },
  persistentvolumes: { shortNames: ['pv'] },
  pods: { shortNames: ['po'], categories: ALL },
  replicationcontrollers: { shortNames: ['rc'], categories: ALL },
  resourcequotas: { shortNames: ['quota'] },
  serviceaccounts: { shortNames: ['sa'] },
  services: { shortNames: ['svc'], categories: ALL },
  'mutatingwebhookconfigurations.admissionregistration.k8s.io': { categories: EXTENSIONS },
  'validatingadmissionpolicies.admissionregistration.k8s.io': { categories: EXTENSIONS },
  'validatingadmissionpolicybindings.admissionregistration.k8s.io': { categories: EXTENSIONS },
  'validatingwebhookconfigurations.admissionregistration.k8s.io': { categories: EXTENSIONS },
  'customresourcedefinitions.apiextensions.k8s.io': {
    shortNames: ['crd', 'crds'],
    categories: EXTENSIONS,
  },
  'apiservices.apiregistration.k8s.io': { categories: EXTENSIONS },
  'daemonsets.apps': { shortNames: ['ds'], categories: ALL },
  'deployments.apps': { shortNames: ['deploy'], categories: ALL },
  'replicasets.apps': { shortNames: ['rs'], categories: ALL },
  'statefulsets.apps': { shortNames: ['sts'], categories: ALL },
  'horizontalpodautoscalers.autoscaling': {
    shortNames: ['hpa'],
    categories: ALL,
    storage: { group: 'autoscaling', version: 'v2' },
  },
  'cronjobs.batch': { shortNames: ['cj'], categories: ALL },
  'jobs.batch': { categories: ALL },
  'certificatesigningrequests.certificates.k8s.io': { shortNames: ['csr'] },
  'events.events.k8s.io': { shortNames: ['ev'], storage: { group: '', version: 'v1' } },
  'ingresses.networking.k8s.io': { shortNames: ['ing'] },
  'ipaddresses.networking.k8s.io': { shortNames: ['ip'] },
  'networkpolicies.networking.k8s.io': { shortNames: ['netpol'] },
  'poddisruptionbudgets.policy': { shortNames: ['pdb'] },
  'priorityclasses.scheduling.k8s.io': { shortNames: ['pc'] },
  'storageclasses.storage.k8s.io': { shortNames: ['sc'] },
  'volumeattributesclasses.storage.k8s.io': { shortNames: ['vac'] },
};
