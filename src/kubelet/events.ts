import type { Pod } from '../api/types.generated.ts';
import type { EventRecorder } from '../client/events.ts';

/** Events about pods, named and worded as Kubernetes' kubelet does. Never throws or waits. */
export interface PodEvents {
  emit(
    pod: Pod,
    type: 'Normal' | 'Warning',
    reason: string,
    message: string,
    /** The container that it is about, where there is one. */
    containerName?: string,
  ): void;
}

export function createPodEvents(recorder: EventRecorder): PodEvents {
  return {
    emit(pod, type, reason, message, containerName) {
      const { name, namespace, uid, resourceVersion } = pod.metadata;
      const metadata = { name, namespace, uid, resourceVersion };
      const about = { apiVersion: 'v1', kind: 'Pod', metadata };
      const isInit = pod.spec?.initContainers?.some((each) => each.name === containerName);
      const list = isInit ? 'initContainers' : 'containers';
      const fieldPath = containerName ? `spec.${list}{${containerName}}` : undefined;
      recorder.event(about, type, reason, message, fieldPath ? { fieldPath } : {});
    },
  };
}
