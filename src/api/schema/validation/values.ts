/**
 * Constraints of single fields as data: type → field → what its value may be. They hold wherever
 * the type occurs. An absent value is always fine here; what must be there is checked elsewhere.
 */
export interface ValueRule {
  oneOf?: readonly string[];
  min?: number;
  max?: number;
}

const NOT_NEGATIVE: ValueRule = { min: 0 };
const POSITIVE: ValueRule = { min: 1 };
const PORT: ValueRule = { min: 1, max: 65_535 };
const PROTOCOL: ValueRule = { oneOf: ['SCTP', 'TCP', 'UDP'] };
const PULL_POLICY: ValueRule = { oneOf: ['Always', 'IfNotPresent', 'Never'] };
const FAILURE_POLICY: ValueRule = { oneOf: ['Fail', 'Ignore'] };
const MATCH_POLICY: ValueRule = { oneOf: ['Equivalent', 'Exact'] };
const UPDATE_STRATEGY: ValueRule = { oneOf: ['OnDelete', 'RollingUpdate'] };
const RECLAIM_POLICY: ValueRule = { oneOf: ['Delete', 'Recycle', 'Retain'] };
const VOLUME_MODE: ValueRule = { oneOf: ['Block', 'Filesystem'] };
const TRAFFIC_POLICY: ValueRule = { oneOf: ['Cluster', 'Local'] };
const TAINT_EFFECT: ValueRule = { oneOf: ['NoExecute', 'NoSchedule', 'PreferNoSchedule'] };
const PREEMPTION: ValueRule = { oneOf: ['Never', 'PreemptLowerPriority'] };
const NODE_POLICY: ValueRule = { oneOf: ['Honor', 'Ignore'] };
const FILE_MODE: ValueRule = { min: 0, max: 0o777 };
const CONTAINER = {
  imagePullPolicy: PULL_POLICY,
  terminationMessagePolicy: { oneOf: ['FallbackToLogsOnError', 'File'] },
};
const USER_ID: ValueRule = { min: 0, max: 2 ** 31 - 1 };
const WEBHOOK = {
  failurePolicy: FAILURE_POLICY,
  matchPolicy: MATCH_POLICY,
  sideEffects: { oneOf: ['None', 'NoneOnDryRun'] },
  timeoutSeconds: { min: 1, max: 30 },
};

export const VALUE_RULES: Record<string, Record<string, ValueRule>> = {
  'core.v1.ConfigMapVolumeSource': { defaultMode: FILE_MODE },
  'core.v1.Container': CONTAINER,
  'core.v1.ContainerPort': { hostPort: PORT, protocol: PROTOCOL },
  'core.v1.ContainerResizePolicy': {
    resourceName: { oneOf: ['cpu', 'memory'] },
    restartPolicy: { oneOf: ['NotRequired', 'RestartContainer'] },
  },
  'core.v1.DownwardAPIVolumeFile': { mode: FILE_MODE },
  'core.v1.DownwardAPIVolumeSource': { defaultMode: FILE_MODE },
  'core.v1.EndpointPort': { port: PORT, protocol: PROTOCOL },
  'core.v1.EphemeralContainer': CONTAINER,
  'core.v1.HTTPGetAction': { scheme: { oneOf: ['HTTP', 'HTTPS'] } },
  'core.v1.KeyToPath': { mode: FILE_MODE },
  'core.v1.PersistentVolumeClaimSpec': { volumeMode: VOLUME_MODE },
  'core.v1.PersistentVolumeSpec': {
    persistentVolumeReclaimPolicy: RECLAIM_POLICY,
    volumeMode: VOLUME_MODE,
  },
  'core.v1.PodSecurityContext': {
    fsGroup: USER_ID,
    fsGroupChangePolicy: { oneOf: ['Always', 'OnRootMismatch'] },
    runAsGroup: USER_ID,
    runAsUser: USER_ID,
    supplementalGroupsPolicy: { oneOf: ['Merge', 'Strict'] },
  },
  'core.v1.PodSpec': {
    activeDeadlineSeconds: { min: 1, max: 2 ** 31 - 1 },
    dnsPolicy: { oneOf: ['ClusterFirst', 'ClusterFirstWithHostNet', 'Default', 'None'] },
    preemptionPolicy: PREEMPTION,
    restartPolicy: { oneOf: ['Always', 'Never', 'OnFailure'] },
    terminationGracePeriodSeconds: NOT_NEGATIVE,
  },
  'core.v1.Probe': {
    failureThreshold: NOT_NEGATIVE,
    initialDelaySeconds: NOT_NEGATIVE,
    periodSeconds: NOT_NEGATIVE,
    successThreshold: NOT_NEGATIVE,
    terminationGracePeriodSeconds: POSITIVE,
    timeoutSeconds: NOT_NEGATIVE,
  },
  'core.v1.ProjectedVolumeSource': { defaultMode: FILE_MODE },
  'core.v1.ReplicationControllerSpec': { minReadySeconds: NOT_NEGATIVE, replicas: NOT_NEGATIVE },
  'core.v1.SeccompProfile': { type: { oneOf: ['Localhost', 'RuntimeDefault', 'Unconfined'] } },
  'core.v1.SecretVolumeSource': { defaultMode: FILE_MODE },
  'core.v1.SecurityContext': { runAsGroup: USER_ID, runAsUser: USER_ID },
  'core.v1.ServiceAccountTokenProjection': { expirationSeconds: { min: 600, max: 2 ** 32 } },
  'core.v1.ServicePort': { nodePort: { min: 0, max: 65_535 }, port: PORT, protocol: PROTOCOL },
  'core.v1.ServiceSpec': {
    externalTrafficPolicy: TRAFFIC_POLICY,
    internalTrafficPolicy: TRAFFIC_POLICY,
    ipFamilyPolicy: { oneOf: ['PreferDualStack', 'RequireDualStack', 'SingleStack'] },
    sessionAffinity: { oneOf: ['ClientIP', 'None'] },
    type: { oneOf: ['ClusterIP', 'ExternalName', 'LoadBalancer', 'NodePort'] },
  },
  'core.v1.ClientIPConfig': { timeoutSeconds: { min: 1, max: 86_400 } },
  'core.v1.Taint': { effect: TAINT_EFFECT },
  'core.v1.Toleration': { effect: TAINT_EFFECT, operator: { oneOf: ['Equal', 'Exists'] } },
  'core.v1.TopologySpreadConstraint': {
    maxSkew: POSITIVE,
    minDomains: POSITIVE,
    nodeAffinityPolicy: NODE_POLICY,
    nodeTaintsPolicy: NODE_POLICY,
    whenUnsatisfiable: { oneOf: ['DoNotSchedule', 'ScheduleAnyway'] },
  },
  'core.v1.PreferredSchedulingTerm': { weight: { min: 1, max: 100 } },
  'core.v1.WeightedPodAffinityTerm': { weight: { min: 1, max: 100 } },
  'core.v1.VolumeMount': {
    mountPropagation: { oneOf: ['Bidirectional', 'HostToContainer', 'None'] },
  },
  'admissionregistration.v1.MatchResources': { matchPolicy: MATCH_POLICY },
  'admissionregistration.v1.MutatingWebhook': {
    ...WEBHOOK,
    reinvocationPolicy: { oneOf: ['IfNeeded', 'Never'] },
  },
  'admissionregistration.v1.ValidatingAdmissionPolicySpec': { failurePolicy: FAILURE_POLICY },
  'admissionregistration.v1.ValidatingWebhook': WEBHOOK,
  'apps.v1.DaemonSetSpec': { minReadySeconds: NOT_NEGATIVE, revisionHistoryLimit: NOT_NEGATIVE },
  'apps.v1.DaemonSetUpdateStrategy': { type: UPDATE_STRATEGY },
  'apps.v1.DeploymentSpec': {
    minReadySeconds: NOT_NEGATIVE,
    progressDeadlineSeconds: NOT_NEGATIVE,
    replicas: NOT_NEGATIVE,
    revisionHistoryLimit: NOT_NEGATIVE,
  },
  'apps.v1.DeploymentStrategy': { type: { oneOf: ['Recreate', 'RollingUpdate'] } },
  'apps.v1.ReplicaSetSpec': { minReadySeconds: NOT_NEGATIVE, replicas: NOT_NEGATIVE },
  'apps.v1.RollingUpdateStatefulSetStrategy': { partition: NOT_NEGATIVE },
  'apps.v1.StatefulSetSpec': {
    minReadySeconds: NOT_NEGATIVE,
    podManagementPolicy: { oneOf: ['OrderedReady', 'Parallel'] },
    replicas: NOT_NEGATIVE,
    revisionHistoryLimit: NOT_NEGATIVE,
  },
  'apps.v1.StatefulSetUpdateStrategy': { type: UPDATE_STRATEGY },
  'authentication.v1.TokenRequestSpec': { expirationSeconds: { min: 600, max: 2 ** 32 } },
  'autoscaling.v1.ScaleSpec': { replicas: NOT_NEGATIVE },
  'autoscaling.v1.HorizontalPodAutoscalerSpec': { maxReplicas: POSITIVE, minReplicas: POSITIVE },
  'autoscaling.v2.HorizontalPodAutoscalerSpec': { maxReplicas: POSITIVE, minReplicas: POSITIVE },
  'batch.v1.CronJobSpec': {
    concurrencyPolicy: { oneOf: ['Allow', 'Forbid', 'Replace'] },
    failedJobsHistoryLimit: NOT_NEGATIVE,
    startingDeadlineSeconds: NOT_NEGATIVE,
    successfulJobsHistoryLimit: NOT_NEGATIVE,
  },
  'batch.v1.JobSpec': {
    activeDeadlineSeconds: NOT_NEGATIVE,
    backoffLimit: NOT_NEGATIVE,
    completionMode: { oneOf: ['Indexed', 'NonIndexed'] },
    completions: NOT_NEGATIVE,
    parallelism: NOT_NEGATIVE,
    podReplacementPolicy: { oneOf: ['Failed', 'TerminatingOrFailed'] },
    ttlSecondsAfterFinished: NOT_NEGATIVE,
  },
  'batch.v1.PodFailurePolicyRule': {
    action: { oneOf: ['Count', 'FailIndex', 'FailJob', 'Ignore'] },
  },
  'certificates.v1.CertificateSigningRequestSpec': { expirationSeconds: { min: 600 } },
  'coordination.v1.LeaseSpec': { leaseDurationSeconds: POSITIVE, leaseTransitions: NOT_NEGATIVE },
  'discovery.v1.EndpointPort': { port: { min: 0, max: 65_535 }, protocol: PROTOCOL },
  'discovery.v1.EndpointSlice': { addressType: { oneOf: ['FQDN', 'IPv4', 'IPv6'] } },
  'networking.v1.HTTPIngressPath': {
    pathType: { oneOf: ['Exact', 'ImplementationSpecific', 'Prefix'] },
  },
  'networking.v1.NetworkPolicyPort': { endPort: PORT, protocol: PROTOCOL },
  'policy.v1.PodDisruptionBudgetSpec': {
    unhealthyPodEvictionPolicy: { oneOf: ['AlwaysAllow', 'IfHealthyBudget'] },
  },
  'rbac.v1.Subject': { kind: { oneOf: ['Group', 'ServiceAccount', 'User'] } },
  'scheduling.v1.PriorityClass': { preemptionPolicy: PREEMPTION },
  'storage.v1.StorageClass': {
    reclaimPolicy: { oneOf: ['Delete', 'Retain'] },
    volumeBindingMode: { oneOf: ['Immediate', 'WaitForFirstConsumer'] },
  },
};

/** What is wrong with a number, in the words of Kubernetes, or undefined. */
export function rangeProblem(value: number, { min, max }: ValueRule): string | undefined {
  if ((min === undefined || value >= min) && (max === undefined || value <= max)) return undefined;
  if (max !== undefined) {
    return max === 0o777
      ? 'must be a number between 0 and 0777 (octal), both inclusive'
      : `must be between ${min ?? 0} and ${max}, inclusive`;
  }
  return min === 1 ? 'must be greater than 0' : `must be greater than or equal to ${min ?? 0}`;
}
