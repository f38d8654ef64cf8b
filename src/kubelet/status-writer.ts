import type { Pod, PodStatus } from '../api/types.generated.ts';
import { isStatus } from '../api/status.ts';
import { describeError } from '../base/log.ts';
import type { Log } from '../base/log.ts';
import { PODS } from '../client/resources.ts';
import type { NodeContext } from './context.ts';
import { isPassing } from './status.ts';

/**
 * Writes a pod's status to the API when it says something new, one write at a time; what changes
 * during a write goes with the next one.
 */
export interface StatusWriter {
  write(pod: Pod, status: PodStatus, annotations: Record<string, string>): void;
  /** Resolves when the newest status is written, or the pod is gone. */
  flush(): Promise<void>;
  close(): Promise<void>;
}

interface Draft {
  pod: Pod;
  status: PodStatus;
  annotations: Record<string, string>;
}

const RETRY_MIN_MS = 200;
const RETRY_MAX_MS = 10_000;

export function createStatusWriter(
  context: NodeContext,
  log: Log,
  onWritten: (pod: Pod) => void,
): StatusWriter {
  const life = new AbortController();
  let draft: Draft | undefined;
  let writing: Promise<void> | undefined;

  const isNews = ({ pod, status, annotations }: Draft) =>
    overConditions(pod, status).length > 0 ||
    !covers(pod.status, status) ||
    !covers(pod.metadata.annotations ?? {}, annotations);

  const send = async ({ pod, status, annotations }: Draft): Promise<void> => {
    const { namespace, name = '', uid } = pod.metadata;
    const metadata = { uid, ...(Object.keys(annotations).length > 0 ? { annotations } : {}) };
    const conditions = [...(status.conditions ?? []), ...overConditions(pod, status)];
    const whole = { ...status, ...wholeLists(status), conditions };
    const body = nullify({ metadata, status: whole });
    const options = { subresource: 'status', signal: life.signal };
    const key = { namespace, name };
    const written = await context.client.patch(PODS, key, 'strategic-merge', body, options);
    onWritten(written);
  };

  const run = async (): Promise<void> => {
    let delayMs = RETRY_MIN_MS;
    while (draft && !life.signal.aborted) {
      const current = draft;
      draft = undefined;
      try {
        await send(current);
        delayMs = RETRY_MIN_MS;
      } catch (error) {
        // Gone, or replaced by another pod of the name (the uid of the patch differs).
        if (isStatus(error, 'NotFound') || isStatus(error, 'Conflict')) continue;
        if (life.signal.aborted) continue;
        log.warn('status cannot be written', { error: describeError(error) });
        draft ??= current;
        await context.clock.sleep(delayMs, life.signal).catch(() => {});
        delayMs = Math.min(delayMs * 2, RETRY_MAX_MS);
      }
    }
    // At once, not when the promise is seen to settle: a write in between would be lost.
    writing = undefined;
  };

  return {
    write(pod, status, annotations) {
      const next = { pod, status, annotations };
      if (!isNews(next)) {
        // A newer status than one that waits: what waits is not wanted any more.
        if (!writing) draft = undefined;
        return;
      }
      draft = next;
      writing ??= run();
    },
    async flush() {
      while (writing) await writing;
    },
    async close() {
      life.abort();
      await writing;
    },
  };
}

/** Addresses are merged by what they are: without this, one that a VM had before would stay. */
function wholeLists({ podIPs, hostIPs }: PodStatus): object {
  const whole = (list: object[] | undefined) => list && [...list, { $patch: 'replace' }];
  return { podIPs: whole(podIPs), hostIPs: whole(hostIPs) };
}

/** What takes away conditions that were written and are not true any more. */
function overConditions(pod: Pod, { conditions = [] }: PodStatus): object[] {
  return (pod.status?.conditions ?? [])
    .filter(({ type }) => isPassing(type) && !conditions.some((each) => each.type === type))
    .map(({ type }) => ({ type, $patch: 'delete' }));
}

/** Whether all that `wanted` says is in `actual`; undefined means that it must not be there. */
export function covers(actual: unknown, wanted: unknown): boolean {
  if (wanted === undefined) return actual === undefined || actual === null;
  if (Array.isArray(wanted)) {
    if (!Array.isArray(actual)) return wanted.length === 0 && actual === undefined;
    if (isConditions(wanted)) return coversConditions(actual, wanted);
    return actual.length === wanted.length && wanted.every((each, i) => covers(actual[i], each));
  }
  if (typeof wanted !== 'object' || wanted === null) return actual === wanted;
  const entries = Object.entries(wanted);
  if (typeof actual !== 'object' || actual === null) {
    return entries.every(([, value]) => value === undefined);
  }
  return entries.every(([key, value]) => covers((actual as Record<string, unknown>)[key], value));
}

interface Typed {
  type?: string;
}

function isConditions(list: unknown[]): list is Typed[] {
  return list.length > 0 && list.every((each) => typeof (each as Typed)?.type === 'string');
}

/** Others own conditions too, so they are matched by type, in any order. */
function coversConditions(actual: Typed[], wanted: Typed[]): boolean {
  return wanted.every((each) => {
    const found = actual.find((other) => other.type === each.type);
    return found !== undefined && covers(found, each);
  });
}

/** A patch removes what is null; undefined would leave it as it is. */
function nullify(value: unknown): unknown {
  return JSON.parse(
    JSON.stringify(value, (_key, each: unknown) => (each === undefined ? null : each)),
  );
}
