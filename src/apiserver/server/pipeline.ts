import { AssertionError } from '../../base/assert.ts';
import { describeError } from '../../base/log.ts';
import { StatusError, badRequest } from '../../api/status.ts';
import {
  CompactedError,
  FutureRevisionError,
  InvalidKeyError,
  ObjectTooLargeError,
  StoreBusyError,
  StoreClosedError,
  StoreUnavailableError,
} from '../../store/store.ts';
import { statusReply, warningHeader } from '../codec/reply.ts';
import type { RequestTrace } from '../audit/event.ts';
import type { RequestContext, ServerContext } from '../context.ts';
import { inTenant } from '../tenancy/named-user.ts';
import { authenticate, impersonate } from './authentication.ts';
import { attributesOf, requireAllowed } from './authorization.ts';
import type { ApiExchange, ApiReply } from './exchange.ts';
import { parseRequestInfo } from './path.ts';
import type { RequestInfo } from './path.ts';
import { tooMany } from './turns.ts';

const READ_VERBS = new Set(['get', 'list', 'watch']);
const STREAM_SUBRESOURCES = new Set(['attach', 'exec', 'proxy', 'log', 'portforward']);
const WARNINGS_MAX = 50;
const METHODS = new Set(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE']);

export type Dispatch = (context: RequestContext) => Promise<ApiReply>;

/**
 * The way of every request, from sockets and from the loopback alike: parse, authenticate,
 * impersonate, authorize, admit to the limit of requests in flight, answer. It never throws:
 * whatever goes wrong is answered as a `Status`.
 */
export function createPipeline(
  server: ServerContext,
  dispatch: Dispatch,
): (exchange: ApiExchange) => Promise<ApiReply> {
  return async (exchange) => {
    const auditId = server.random.uuid();
    const startMs = server.clock.monotonicMs();
    const receivedMs = server.clock.nowMs();
    const trace: RequestTrace = {};
    let info: RequestInfo | undefined;
    let reply: ApiReply;
    try {
      info = parseRequestInfo(exchange.method, exchange.path, exchange.query);
      const context = await identify(server, exchange, info, { auditId, trace });
      reply = await limited(server, context, () => dispatch(context));
      addWarnings(reply, context.warnings);
    } catch (error) {
      const failure = toStatusError(error, server, exchange, auditId);
      trace.failure = failure.reason;
      reply = statusReply(failure);
    }
    reply.headers['audit-id'] = auditId;
    const tookMs = server.clock.monotonicMs() - startMs;
    const verb = METHODS.has(exchange.method) ? (info?.verb ?? exchange.method) : 'other';
    server.metrics.countRequest(countedResource(server, info), verb, reply.status, tookMs);
    server.audit?.({ exchange, info, trace, auditId, receivedMs }, reply);
    return reply;
  };
}

/** Only kinds that exist have counters of their own: others are as many as somebody invents. */
function countedResource({ schema }: ServerContext, info: RequestInfo | undefined): string {
  if (!info?.isResourceRequest) return '';
  const isKnown = schema.byResource(info.group, info.version, info.resource) !== undefined;
  return isKnown ? info.resource : 'unknown';
}

async function identify(
  server: ServerContext,
  exchange: ApiExchange,
  info: RequestInfo,
  { auditId, trace }: Pick<RequestContext, 'auditId' | 'trace'>,
): Promise<RequestContext> {
  if (!METHODS.has(exchange.method)) {
    throw new StatusError('MethodNotAllowed', `the method "${exchange.method}" is not known here`);
  }
  const authenticated = await authenticate(exchange, server.authenticators);
  trace.authenticated = authenticated;
  // Before it is known whether the request is allowed: refusals take time as well.
  await server.turns.take(authenticated);
  const named = impersonate(exchange, authenticated, server.authorizer);
  const user = named === authenticated ? named : inTenant(named, authenticated, server.tenants);
  trace.user = user;
  const attributes = attributesOf(info, user);
  trace.decision = server.authorizer.authorize(attributes);
  requireAllowed(attributes, trace.decision);
  return { server, exchange, info, user, warnings: [], auditId, trace };
}

async function limited(
  server: ServerContext,
  context: RequestContext,
  work: () => Promise<ApiReply>,
): Promise<ApiReply> {
  const { info, user } = context;
  const isLong = info.verb === 'watch' || STREAM_SUBRESOURCES.has(info.subresource);
  // Operators must get in while tenants overload the server, and its own parts even more so.
  const isExempt = context.exchange.user !== undefined || user.groups.includes('system:masters');
  if (isLong || isExempt) return work();
  const leave = server.shares[READ_VERBS.has(info.verb) ? 'reads' : 'writes'].take(user);
  if (!leave) throw tooMany();
  try {
    return await work();
  } finally {
    leave();
  }
}

function addWarnings(reply: ApiReply, warnings: string[]): void {
  if (warnings.length === 0) return;
  reply.headers.warning = [...new Set(warnings)].slice(0, WARNINGS_MAX).map(warningHeader);
}

function toStatusError(
  error: unknown,
  server: ServerContext,
  exchange: ApiExchange,
  auditId: string,
): StatusError {
  if (error instanceof StatusError) return error;
  if (error instanceof CompactedError) {
    const message = `too old resource version: the oldest kept is ${error.compactRevision}`;
    return new StatusError('Expired', message);
  }
  if (error instanceof FutureRevisionError) return futureRevision(error);
  const storeError = fromStore(error);
  if (storeError) return storeError;
  if (error instanceof AssertionError) {
    // A broken invariant must end the process, not turn into an answer.
    setImmediate(() => {
      throw error;
    });
  }
  const { method, path } = exchange;
  const stack = error instanceof Error ? error.stack : undefined;
  server.log.error('Cannot answer a request', { error, stack, method, path, auditId });
  const message = `Internal error occurred: ${describeError(error)}`;
  return new StatusError('InternalError', message, {
    details: { causes: [{ message: describeError(error) }] },
  });
}

/** What the store refuses, and what it cannot do now. */
function fromStore(error: unknown): StatusError | undefined {
  if (!(error instanceof Error)) return undefined;
  const retry = { details: { retryAfterSeconds: 1 } };
  if (error instanceof ObjectTooLargeError) {
    return new StatusError('RequestEntityTooLarge', `Request entity too large: ${error.message}`);
  }
  if (error instanceof InvalidKeyError) return badRequest(error.message);
  if (error instanceof StoreBusyError) {
    return new StatusError('TooManyRequests', error.message, retry);
  }
  if (error instanceof StoreUnavailableError || error instanceof StoreClosedError) {
    return new StatusError('ServiceUnavailable', error.message, retry);
  }
  return undefined;
}

/** Clients recognise the cause and come back after a second. */
function futureRevision(error: FutureRevisionError): StatusError {
  const cause = { reason: 'ResourceVersionTooLarge', message: 'Too large resource version' };
  const message = `Timeout: Too large resource version: current: ${error.currentRevision}`;
  return new StatusError('Timeout', message, {
    details: { causes: [cause], retryAfterSeconds: 1 },
  });
}
