import type { KubeObject } from '../../api/object.ts';
import { isStatus, StatusError } from '../../api/status.ts';
import type { Pod } from '../../api/types.generated.ts';
import { describeError } from '../../base/log.ts';
import { objectKey } from '../../client/informer.ts';
import { PODS } from '../../client/resources.ts';
import type { ControllerContext } from './context.ts';
import type { Expectations } from './expectations.ts';

const SLOW_START_BATCH = 1;

/**
 * Creates pods for an owner, in batches that double, so that a template which cannot be created
 * fails once and not five hundred times. In a namespace that is ending nothing is created, and
 * that is no failure.
 *
 * @throws the first error; nothing more is expected to be observed for the pods that failed
 */
export async function createPods(
  context: Pick<ControllerContext, 'client' | 'events'>,
  expectations: Expectations,
  owner: KubeObject,
  pods: Pod[],
): Promise<void> {
  const { client, events } = context;
  const key = objectKey(owner);
  expectations.expectCreations(key, pods.length);
  const createOne = async (pod: Pod): Promise<void> => {
    try {
      const { metadata } = await client.create(PODS, pod);
      events.event(owner, 'Normal', 'SuccessfulCreate', `Created pod: ${metadata.name}`);
    } catch (error) {
      // This pod will never be observed.
      expectations.creationObserved(key);
      if (isNamespaceEnding(error)) return;
      events.event(owner, 'Warning', 'FailedCreate', `Error creating: ${describeError(error)}`);
      throw error;
    }
  };
  let done = 0;
  for (let batch = SLOW_START_BATCH; done < pods.length; batch *= 2) {
    const some = pods.slice(done, done + batch);
    const results = await Promise.allSettled(some.map(createOne));
    done += some.length;
    const failed = results.find((result) => result.status === 'rejected');
    if (failed) {
      for (; done < pods.length; done++) expectations.creationObserved(key);
      throw failed.reason as Error;
    }
  }
}

function isNamespaceEnding(error: unknown): boolean {
  const causes = error instanceof StatusError ? (error.details?.causes ?? []) : [];
  return causes.some(({ reason }) => reason === 'NamespaceTerminating');
}

/** Deletes pods of an owner all at once. Those that are gone already are no failure. */
export async function deletePods(
  context: Pick<ControllerContext, 'client' | 'events'>,
  expectations: Expectations,
  owner: KubeObject,
  pods: Pod[],
): Promise<void> {
  const { client, events } = context;
  const key = objectKey(owner);
  const uids = pods.map(({ metadata }) => metadata.uid ?? '');
  expectations.expectDeletions(key, uids);
  const results = await Promise.allSettled(
    pods.map(async ({ metadata }) => {
      const { namespace, name = '', uid } = metadata;
      try {
        await client.delete(PODS, { namespace, name }, { uid });
        events.event(owner, 'Normal', 'SuccessfulDelete', `Deleted pod: ${name}`);
      } catch (error) {
        expectations.deletionObserved(key, uid ?? '');
        if (isStatus(error, 'NotFound')) return;
        events.event(owner, 'Warning', 'FailedDelete', `Error deleting: ${describeError(error)}`);
        throw error;
      }
    }),
  );
  const failed = results.find((result) => result.status === 'rejected');
  if (failed) throw failed.reason as Error;
}
