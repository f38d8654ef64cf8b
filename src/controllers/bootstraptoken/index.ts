import { isStatus } from '../../api/status.ts';
import type { Secret } from '../../api/types.generated.ts';
import { BOOTSTRAP_SECRET_NAMESPACE, BOOTSTRAP_SECRET_TYPE } from '../../auth/bootstrap-tokens.ts';
import { runController } from '../../client/controller.ts';
import { createInformer, objectKey } from '../../client/informer.ts';
import { SECRETS } from '../../client/resources.ts';
import { createWorkQueue } from '../../client/workqueue.ts';
import type { ControllerContext } from '../common/context.ts';
import { splitKey } from '../common/context.ts';

/** Timers are relative and clocks are set: a token that is far from expiring is looked at daily. */
const RECHECK_MAX_MS = 24 * 3600 * 1000;

/** Deletes the Secrets of bootstrap tokens that have expired. Tokens without a time stay. */
export function runBootstrapTokenCleaner(context: ControllerContext): Promise<void> {
  const { client, clock, random, log, signal } = context;
  const tokens = createInformer({
    ...{ client, clock, random, log, signal },
    resource: SECRETS,
    namespace: BOOTSTRAP_SECRET_NAMESPACE,
    fieldSelector: `type=${BOOTSTRAP_SECRET_TYPE}`,
  });
  const queue = createWorkQueue(clock);
  const enqueue = (secret: Secret) => queue.add(objectKey(secret));
  tokens.addHandler({ add: enqueue, update: enqueue });
  const reconcile = async (key: string): Promise<void> => {
    const { namespace, name } = splitKey(key);
    const secret = tokens.get(namespace, name);
    if (!secret || secret.metadata.deletionTimestamp) return;
    const expirationMs = expirationOf(secret);
    if (expirationMs === undefined) return;
    const leftMs = expirationMs - clock.nowMs();
    if (leftMs > 0) {
      queue.addAfter(key, Math.min(leftMs, RECHECK_MAX_MS));
      return;
    }
    const { uid, resourceVersion } = secret.metadata;
    try {
      // Of this version: a token that was extended meanwhile stays.
      await client.delete(SECRETS, { namespace, name }, { uid, resourceVersion });
      log.info('Deleted expired bootstrap token', { secret: key });
    } catch (error) {
      if (!isStatus(error, 'NotFound')) throw error;
    }
  };
  const informers = [tokens];
  return runController({
    ...{ name: 'bootstraptoken', queue, reconcile, informers, clock, log, signal },
    concurrency: 1,
  });
}

/** A time that cannot be read counts as over: such a token admits nobody either. */
function expirationOf({ data }: Secret): number | undefined {
  const encoded = data?.expiration;
  if (encoded === undefined || encoded === '') return undefined;
  const expirationMs = Date.parse(Buffer.from(encoded, 'base64').toString('utf8'));
  return Number.isNaN(expirationMs) ? 0 : expirationMs;
}
