import type { ProtobufFields } from './messages.ts';

/**
 * Protobuf numbers that are newer than the field list, read from the message descriptors in the
 * binary of kubectl 1.33. Fields that are newer still have no number here: they can be written in
 * JSON and YAML, and are dropped from protobuf bodies as unknown.
 */
const CORE = 'k8s.io.api.core.v1';
const QUANTITY = 'k8s.io.apimachinery.pkg.api.resource.Quantity';

export const SUPPLEMENT: ProtobufFields = {
  'k8s.io.api.apps.v1.DeploymentStatus': { terminatingReplicas: [9, 'int32'] },
  'k8s.io.api.apps.v1.ReplicaSetStatus': { terminatingReplicas: [7, 'int32'] },
  'k8s.io.api.autoscaling.v2.HPAScalingRules': { tolerance: [4, QUANTITY] },
  [`${CORE}.ContainerStatus`]: { stopSignal: [15, 'string'] },
  [`${CORE}.Lifecycle`]: { stopSignal: [3, 'string'] },
  [`${CORE}.NodeSwapStatus`]: { capacity: [1, 'int64'] },
  [`${CORE}.NodeSystemInfo`]: { swap: [11, `${CORE}.NodeSwapStatus`] },
  [`${CORE}.PodCondition`]: { observedGeneration: [7, 'int64'] },
  [`${CORE}.PodStatus`]: { observedGeneration: [17, 'int64'] },
  'k8s.io.api.discovery.v1.EndpointHints': { forNodes: [2, '[]k8s.io.api.discovery.v1.ForNode'] },
  'k8s.io.api.discovery.v1.ForNode': { name: [1, 'string'] },
  'k8s.io.api.storage.v1.CSIDriverSpec': { nodeAllocatableUpdatePeriodSeconds: [9, 'int64'] },
  'k8s.io.api.storage.v1.VolumeError': { errorCode: [3, 'int32'] },
};
