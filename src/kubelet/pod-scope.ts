import type { Container, Pod, ResourceRequirements } from '../api/types.generated.ts';
import type { Log } from '../base/log.ts';
import type { NodeContext } from './context.ts';
import type { DownwardContext } from './field-ref.ts';
import type { PodView } from './history.ts';
import type { Jobs } from './jobs.ts';

/** What the parts of a pod's worker see of the pod: always the newest. */
export interface PodScope {
  readonly context: NodeContext;
  readonly log: Log;
  readonly jobs: Jobs;
  readonly pod: Pod;
  view(): PodView;
  /** What the container is to be started with. */
  allocated(container: Container): ResourceRequirements | undefined;
}

/** Why something of a pod waits, as its status tells it. */
export interface Problem {
  reason: string;
  message: string;
}

/** What environment variables and volumes of the pod may refer to. */
export function downwardContext(context: NodeContext, view: PodView): DownwardContext {
  const { hostIp, size } = context;
  return {
    pod: view.pod,
    podIp: view.sandbox?.address ?? '',
    hostIp,
    node: { cpuMillis: size.cpuCount * 1000, memoryBytes: size.memoryBytes },
  };
}
