import type {
  ContainerStatus,
  Job,
  Pod,
  PodFailurePolicyRule,
  SuccessPolicy,
} from '../../api/types.generated.ts';
import { parseIndexes } from './indexes.ts';

export type FailureAction = 'Count' | 'Ignore' | 'FailJob';

export interface Judgement {
  action: FailureAction;
  /** Why the whole Job fails. */
  message?: string;
}

/** What the first rule that matches a failed pod says about it. */
export function judgeFailure(job: Job, pod: Pod): Judgement {
  const rules = job.spec?.podFailurePolicy?.rules ?? [];
  for (const [index, rule] of rules.entries()) {
    const cause = matchExitCode(rule, pod) ?? matchCondition(rule, pod);
    if (cause === undefined) continue;
    if (rule.action === 'Ignore') return { action: 'Ignore' };
    if (rule.action !== 'FailJob') return { action: 'Count' };
    return { action: 'FailJob', message: `${cause} matching FailJob rule at index ${index}` };
  }
  return { action: 'Count' };
}

const subject = ({ metadata }: Pod): string => `${metadata.namespace}/${metadata.name}`;

function matchExitCode({ onExitCodes }: PodFailurePolicyRule, pod: Pod): string | undefined {
  if (!onExitCodes) return undefined;
  const { containerName, operator, values } = onExitCodes;
  const { initContainerStatuses = [], containerStatuses = [] } = pod.status ?? {};
  const isMatch = ({ name, state }: ContainerStatus): boolean => {
    const exitCode = state?.terminated?.exitCode ?? 0;
    if (exitCode === 0 || (containerName !== undefined && containerName !== name)) return false;
    return values.includes(exitCode) === (operator === 'In');
  };
  const found = [...containerStatuses, ...initContainerStatuses].find(isMatch);
  if (!found) return undefined;
  const exitCode = found.state?.terminated?.exitCode;
  return `Container ${found.name} for pod ${subject(pod)} failed with exit code ${exitCode}`;
}

function matchCondition({ onPodConditions }: PodFailurePolicyRule, pod: Pod): string | undefined {
  const found = onPodConditions?.find(({ type, status = 'True' }) =>
    pod.status?.conditions?.some((known) => known.type === type && known.status === status),
  );
  return found && `Pod ${subject(pod)} has condition ${found.type}`;
}

/** The number of the first rule that the finished indexes satisfy. */
export function matchSuccess(
  policy: SuccessPolicy | undefined,
  succeeded: Set<number>,
  completions: number,
): number | undefined {
  const index = (policy?.rules ?? []).findIndex(({ succeededIndexes, succeededCount }) => {
    const wanted =
      succeededIndexes === undefined ? undefined : parseIndexes(succeededIndexes, completions);
    const counted = wanted ? [...succeeded].filter((one) => wanted.has(one)) : [...succeeded];
    return counted.length >= (succeededCount ?? wanted?.size ?? Infinity);
  });
  return index < 0 ? undefined : index;
}
