import type { KubeObject, ObjectMeta } from '../api/object.ts';
import { isStatus } from '../api/status.ts';
import type { Clock } from '../base/clock.ts';
import { rfc3339 } from '../base/clock.ts';
import type { Log } from '../base/log.ts';
import { describeError } from '../base/log.ts';
import type { Random } from '../base/random.ts';
import type { Client } from './client.ts';
import { EVENTS } from './resources.ts';

export interface EventTarget {
  apiVersion: string;
  kind: string;
  metadata: Pick<ObjectMeta, 'name' | 'namespace' | 'uid' | 'resourceVersion'>;
}

export interface EventRecorder {
  /** Returns at once; the event is written behind, and dropped where it would flood. */
  event(
    about: EventTarget,
    type: 'Normal' | 'Warning',
    reason: string,
    message: string,
    options?: { fieldPath?: string },
  ): void;
  /** Resolves when what was recorded before has been written or given up. */
  flush(): Promise<void>;
}

export interface EventRecorderOptions {
  client: Client;
  component: string;
  /** Node on which the component runs. */
  host?: string;
  clock: Clock;
  random: Random;
  log: Log;
}

/** The limits of client-go's EventCorrelator. */
const CACHE_LENGTH = 4096;
/** Events of one kind about one object that differ in their message only, in ten minutes. */
const SIMILAR_COUNT_MAX = 10;
const SIMILAR_WINDOW_MS = 600_000;
/** Per object: a burst of 25, then one in five minutes. */
const SPAM_BURST = 25;
const SPAM_REFILL_MS = 300_000;
/** What may wait for a slow API server. */
const PENDING_LIMIT = 1000;
/** Kubernetes' limit of Event.message. */
const MESSAGE_LIMIT = 1024;

interface Series {
  namespace: string;
  name: string;
  count: number;
  firstMs: number;
}

/** Writes core/v1 Events as client-go does: repetitions become a count, similar ones one event. */
export function createEventRecorder(options: EventRecorderOptions): EventRecorder {
  const { client, clock, log } = options;
  const series = createRecentMap<Series>();
  const similar = createRecentMap<{ messages: Set<string>; lastMs: number }>();
  const buckets = createRecentMap<{ tokens: number; lastMs: number }>();
  let pendingCount = 0;
  let chain = Promise.resolve();

  /** A token bucket per source and object, as a crash loop writes without end. */
  const isSpam = (about: string, nowMs: number): boolean => {
    const bucket = buckets.get(about) ?? { tokens: SPAM_BURST, lastMs: nowMs };
    bucket.tokens = Math.min(SPAM_BURST, bucket.tokens + (nowMs - bucket.lastMs) / SPAM_REFILL_MS);
    bucket.lastMs = nowMs;
    buckets.set(about, bucket);
    if (bucket.tokens < 1) return true;
    bucket.tokens -= 1;
    return false;
  };

  /** The message to write: after too many different ones they are combined. */
  const aggregate = (group: string, message: string, nowMs: number): string => {
    let entry = similar.get(group);
    if (!entry || nowMs - entry.lastMs > SIMILAR_WINDOW_MS) {
      entry = { messages: new Set(), lastMs: nowMs };
    }
    entry.lastMs = nowMs;
    if (entry.messages.size < SIMILAR_COUNT_MAX) entry.messages.add(message);
    similar.set(group, entry);
    const isCombined = entry.messages.size >= SIMILAR_COUNT_MAX && !entry.messages.has(message);
    return isCombined ? `(combined from similar events): ${message}` : message;
  };

  const write = async (id: string, draft: KubeObject, nowMs: number): Promise<void> => {
    const known = series.get(id);
    if (known) {
      const count = known.count + 1;
      const patch = { count, lastTimestamp: rfc3339(nowMs), message: draft.message };
      try {
        await client.patch(EVENTS, known, 'merge', patch);
        known.count = count;
        return;
      } catch (error) {
        // Events expire; then a new one begins.
        if (!isStatus(error, 'NotFound')) throw error;
      }
    }
    const created = await client.create(EVENTS, draft);
    const { namespace = '', name = '' } = created.metadata;
    series.set(id, { namespace, name, count: 1, firstMs: nowMs });
  };

  return {
    event(about, type, reason, message, { fieldPath } = {}) {
      const nowMs = clock.nowMs();
      const object = [
        about.kind,
        about.metadata.namespace,
        about.metadata.name,
        about.metadata.uid,
      ];
      const subject = object.join('/');
      if (isSpam(subject, nowMs)) return;
      if (pendingCount >= PENDING_LIMIT) return;
      const group = JSON.stringify([subject, type, reason, fieldPath]);
      const text = aggregate(group, message.slice(0, MESSAGE_LIMIT), nowMs);
      const isCombined = text !== message.slice(0, MESSAGE_LIMIT);
      const id = isCombined ? group : JSON.stringify([group, text]);
      const draft = draftEvent(options, about, nowMs, {
        type,
        reason,
        message: text.slice(0, MESSAGE_LIMIT),
        fieldPath,
      });
      pendingCount += 1;
      chain = chain
        .then(() => write(id, draft, nowMs))
        .catch((error: unknown) => {
          log.debug('Event was dropped', { reason, error: describeError(error) });
        })
        .finally(() => {
          pendingCount -= 1;
        });
    },
    flush: () => chain,
  };
}

function draftEvent(
  { component, host, random }: EventRecorderOptions,
  about: EventTarget,
  nowMs: number,
  fields: { type: string; reason: string; message: string; fieldPath?: string | undefined },
): KubeObject {
  const { namespace, name = '', uid, resourceVersion } = about.metadata;
  const { fieldPath, ...rest } = fields;
  const suffix = Buffer.from(random.bytes(4)).toString('hex');
  const time = rfc3339(nowMs);
  return {
    apiVersion: 'v1',
    kind: 'Event',
    metadata: {
      name: `${name}.${nowMs.toString(16)}${suffix}`,
      // Events about cluster-scoped objects live in the default namespace.
      namespace: namespace || 'default',
    },
    involvedObject: {
      apiVersion: about.apiVersion,
      kind: about.kind,
      name,
      ...(namespace ? { namespace } : {}),
      ...(uid ? { uid } : {}),
      ...(resourceVersion ? { resourceVersion } : {}),
      ...(fieldPath ? { fieldPath } : {}),
    },
    ...rest,
    source: { component, ...(host ? { host } : {}) },
    reportingComponent: component,
    reportingInstance: host ?? '',
    firstTimestamp: time,
    lastTimestamp: time,
    eventTime: null,
    count: 1,
  };
}

/** A map that forgets what was not used for longest. */
function createRecentMap<V>(): {
  get(key: string): V | undefined;
  set(key: string, value: V): void;
} {
  const entries = new Map<string, V>();
  return {
    get: (key) => entries.get(key),
    set(key, value) {
      entries.delete(key);
      entries.set(key, value);
      if (entries.size > CACHE_LENGTH) entries.delete(entries.keys().next().value as string);
    },
  };
}
