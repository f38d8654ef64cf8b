import { invalid } from '../../api/status.ts';
import { StatusError } from '../../api/status.ts';
import { CompactedError, SlowWatcherError } from '../../store/store.ts';
import type { Entry, StoreEvent, StoreWatch } from '../../store/store.ts';
import { negotiate } from '../codec/negotiate.ts';
import type { Representation } from '../codec/negotiate.ts';
import { includeObjectOf } from '../codec/represent.ts';
import type { ResourceContext } from '../context.ts';
import { parseListOptions } from '../registry/list-options.ts';
import type { ListOptions } from '../registry/list-options.ts';
import { storeResource } from '../registry/resource.ts';
import { selectionOf } from '../registry/selection.ts';
import type { Predicate } from '../registry/selection.ts';
import type { ApiReply } from '../server/exchange.ts';
import { confinedSelection, confinementOf } from '../tenancy/confinement.ts';
import type { Confinement } from '../tenancy/confinement.ts';
import { createWatchEncoder } from './encode.ts';
import type { WatchEncoder } from './encode.ts';

interface WatchPlan {
  /** What exists already, for watches that begin without a revision. */
  initial: Entry[];
  revision: number;
  predicate: Predicate | undefined;
  view: Confinement['view'];
  options: ListOptions;
  encoder: WatchEncoder;
  timeoutMs: number;
}

/** GET of a collection with `watch=true`: a stream of JSON documents, one a line. */
export async function handleWatch(context: ResourceContext): Promise<ApiReply> {
  const { exchange, server, row, info } = context;
  if (!server.shares.watches.hasRoom(context.user)) {
    const message = 'Too many watches, please try again later.';
    throw new StatusError('TooManyRequests', message, { details: { retryAfterSeconds: 5 } });
  }
  const representation = watchRepresentation(exchange.headers.accept);
  const options = parseListOptions(exchange.query, true);
  const resource = storeResource(server.schema, row);
  const confinement = confinementOf(context, row);
  const { partition, view } = confinement;
  const predicate = confinedSelection(confinement, selectionOf(row, options, info.name));
  const where = {
    ...(row.namespaced && info.namespace ? { namespace: info.namespace } : {}),
    ...(partition === undefined ? {} : { partition }),
  };
  const start = startOf(context, resource, where, options);
  const signal = AbortSignal.any([exchange.signal, server.closing]);
  const { limits, random } = server;
  const timeoutMs = options.timeoutSeconds
    ? options.timeoutSeconds * 1000
    : limits.watchTimeoutMinMs * (1 + random.next());
  const encoder = createWatchEncoder(row, representation, server.watchLines, {
    includeObject: includeObjectOf(exchange.query),
    nowMs: () => server.clock.nowMs(),
  });
  const plan = { ...start, predicate, view, options, encoder, timeoutMs };
  const headers = {
    'content-type': 'application/json',
    'cache-control': 'no-cache, private',
  };
  let events: StoreWatch;
  try {
    events = server.store.watch(resource, { ...where, afterRevision: start.revision, signal });
  } catch (error) {
    if (!(error instanceof CompactedError)) throw error;
    return { status: 200, headers, body: single(encoder.error(goneStatus(start.revision, error))) };
  }
  return { status: 200, headers, body: streamEvents(context, plan, events, signal) };
}

function watchRepresentation(accept: string | undefined): Representation {
  const representation = negotiate(accept);
  if (representation.encoding === 'json') return representation;
  const message = 'watches are written as application/json;stream=watch only';
  throw new StatusError('NotAcceptable', message);
}

/** Without a revision, or with 0, a watch begins with what there is. */
function startOf(
  context: ResourceContext,
  resource: string,
  where: { namespace?: string; partition?: string },
  options: ListOptions,
): { initial: Entry[]; revision: number } {
  if (options.continue || options.limit > 0) {
    throw invalid('meta.k8s.io', 'ListOptions', '', [
      { field: 'continue', message: 'Forbidden: limit and continue are not allowed for watch' },
    ]);
  }
  if (options.resourceVersion) return { initial: [], revision: options.resourceVersion };
  const { entries, revision } = context.server.store.list(resource, where);
  return { initial: entries, revision };
}

/** In the words by which client-go recognises that it has to list again. */
function goneStatus(revision: number, error: CompactedError): StatusError {
  const message = `too old resource version: ${revision} (${error.compactRevision})`;
  return new StatusError('Expired', message, { code: 410 });
}

async function* single(bytes: Uint8Array): AsyncIterable<Uint8Array> {
  yield bytes;
}

async function* streamEvents(
  context: ResourceContext,
  plan: WatchPlan,
  events: StoreWatch,
  signal: AbortSignal,
): AsyncIterable<Uint8Array> {
  const { server } = context;
  const { predicate, encoder, view } = plan;
  const ticker = createTicker(context, plan, signal);
  const iterator = events[Symbol.asyncIterator]();
  const leave = server.shares.watches.take(context.user);
  server.metrics.watchOpened();
  try {
    for (const entry of plan.initial) {
      if (!predicate || predicate(entry)) yield encoder.entry('ADDED', view ? view(entry) : entry);
    }
    let next = iterator.next();
    for (;;) {
      const outcome = await Promise.race([next, ticker.tick()]);
      if (outcome === 'bookmark' || outcome === 'end') {
        const isWanted = plan.options.allowWatchBookmarks && !signal.aborted;
        if (isWanted) yield encoder.bookmark(events.progressRevision);
        if (outcome === 'end') return;
        continue;
      }
      if (outcome.done) return;
      const line = lineOf(viewed(outcome.value, view), predicate, encoder);
      next = iterator.next();
      if (line) yield line;
    }
  } catch (error) {
    // One that reads too slowly is let go: it comes back with the last revision it has seen.
    if (!(error instanceof SlowWatcherError)) throw error;
  } finally {
    server.metrics.watchClosed();
    leave?.();
    ticker.stop();
    await iterator.return?.();
  }
}

function viewed(event: StoreEvent, view: Confinement['view']): StoreEvent {
  if (!view) return event;
  const { entry, previous } = event;
  return { ...event, entry: view(entry), previous: previous && view(previous) };
}

/**
 * What a watcher with a selector sees of an event: an object that begins to match was added, one
 * that no longer does was deleted, with its last matching state at the event's revision.
 */
function lineOf(
  event: StoreEvent,
  predicate: Predicate | undefined,
  encoder: WatchEncoder,
): Uint8Array | undefined {
  if (!predicate) return encoder.entry(event.type, event.entry);
  const matched = event.previous !== undefined && predicate(event.previous);
  const matches = event.type !== 'DELETED' && predicate(event.entry);
  if (matches) return encoder.entry(matched ? 'MODIFIED' : 'ADDED', event.entry);
  if (!matched) return undefined;
  if (event.type === 'DELETED' && predicate(event.entry)) {
    return encoder.entry('DELETED', event.entry);
  }
  return encoder.departure(event);
}

type Tick = 'bookmark' | 'end';

/** Bookmarks about each minute, and the end: one pending promise at a time. */
function createTicker(context: ResourceContext, plan: WatchPlan, signal: AbortSignal) {
  const { clock, limits, random } = context.server;
  const endMs = clock.monotonicMs() + plan.timeoutMs;
  let resolveTick: (tick: Tick) => void = () => {};
  let pending: Promise<Tick> | undefined;
  let timer = { cancel() {} };
  const end = () => resolveTick('end');
  signal.addEventListener('abort', end, { once: true });
  return {
    tick(): Promise<Tick> {
      if (pending) return pending;
      if (signal.aborted) return Promise.resolve('end');
      pending = new Promise<Tick>((resolve) => {
        resolveTick = (tick) => {
          pending = undefined;
          timer.cancel();
          resolve(tick);
        };
      });
      const leftMs = Math.max(0, endMs - clock.monotonicMs());
      // Spread, so that a thousand watchers do not all wake in the same millisecond.
      const bookmarkMs = limits.bookmarkIntervalMs * (0.9 + 0.2 * random.next());
      const tick: Tick = leftMs <= bookmarkMs ? 'end' : 'bookmark';
      timer = clock.after(Math.min(leftMs, bookmarkMs), () => resolveTick(tick));
      return pending;
    },
    stop() {
      timer.cancel();
      signal.removeEventListener('abort', end);
    },
  };
}
