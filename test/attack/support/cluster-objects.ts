/** The least that each cluster-scoped kind has to be, so that there is one that is the operator's. */
export const CLUSTER_OBJECTS: Record<string, object> = {
  persistentvolumes: {
    spec: {
      ...{ capacity: { storage: '1Gi' }, accessModes: ['ReadWriteOnce'] },
      csi: { driver: 'example.org', volumeHandle: 'NAME' },
    },
  },
  'mutatingwebhookconfigurations.admissionregistration.k8s.io': { webhooks: [] },
  'validatingwebhookconfigurations.admissionregistration.k8s.io': { webhooks: [] },
  'validatingadmissionpolicies.admissionregistration.k8s.io': {
    spec: {
      matchConstraints: {
        resourceRules: [
          { apiGroups: [''], apiVersions: ['v1'], operations: ['CREATE'], resources: ['pods'] },
        ],
      },
      validations: [{ expression: 'true' }],
    },
  },
  'validatingadmissionpolicybindings.admissionregistration.k8s.io': {
    spec: { policyName: 'x', validationActions: ['Deny'] },
  },
  'apiservices.apiregistration.k8s.io': {
    spec: {
      ...{ group: 'NAME.example.org', version: 'v1' },
      ...{ groupPriorityMinimum: 1000, versionPriority: 10 },
      service: { namespace: 'globex', name: 'marker' },
      insecureSkipTLSVerify: true,
    },
  },
  'flowschemas.flowcontrol.apiserver.k8s.io': {
    spec: { priorityLevelConfiguration: { name: 'exempt' }, matchingPrecedence: 1, rules: [] },
  },
  'prioritylevelconfigurations.flowcontrol.apiserver.k8s.io': {
    spec: { type: 'Limited', limited: { limitResponse: { type: 'Reject' } } },
  },
  'servicecidrs.networking.k8s.io': { spec: { cidrs: ['10.9.0.0/16'] } },
  'clusterroles.rbac.authorization.k8s.io': { rules: [] },
  'clusterrolebindings.rbac.authorization.k8s.io': {
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'view' },
    subjects: [],
  },
  'deviceclasses.resource.k8s.io': { spec: {} },
  'resourceslices.resource.k8s.io': {
    spec: {
      ...{ driver: 'example.org', nodeName: 'node-1', devices: [] },
      pool: { name: 'p', generation: 1, resourceSliceCount: 1 },
    },
  },
  'priorityclasses.scheduling.k8s.io': { value: 7 },
  'runtimeclasses.node.k8s.io': { handler: 'NAME' },
  'ingressclasses.networking.k8s.io': { spec: { controller: 'example.org/c' } },
  'storageclasses.storage.k8s.io': { provisioner: 'example.org/p' },
  'csidrivers.storage.k8s.io': { spec: {} },
  'csinodes.storage.k8s.io': { spec: { drivers: [] } },
  'volumeattributesclasses.storage.k8s.io': { driverName: 'example.org' },
  'volumeattachments.storage.k8s.io': {
    spec: { attacher: 'example.org', nodeName: 'node-1', source: { persistentVolumeName: 'x' } },
  },
};

export function clusterObject(kind: string, name: string, canary: string) {
  const text = JSON.stringify(CLUSTER_OBJECTS[kind]).replaceAll('NAME', name);
  const { group, version } = (JSON.parse(text) as { spec?: Record<string, string> }).spec ?? {};
  // The name of this kind is made of what it serves.
  const ownName = kind.startsWith('apiservices') ? `${version}.${group}` : name;
  return {
    ...JSON.parse(text),
    metadata: { name: ownName, annotations: { 'example.org/note': canary } },
  };
}
