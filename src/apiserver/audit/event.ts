import type { AuthorizationDecision, UserInfo } from '../../api/auth.ts';
import { rfc3339Micro } from '../../base/clock.ts';
import type { ApiExchange } from '../server/exchange.ts';
import type { RequestInfo } from '../server/path.ts';

/** What becomes known of a request on its way. */
export interface RequestTrace {
  /** Whose credentials it carries. */
  authenticated?: UserInfo;
  /** As whom it acts: another user where it impersonates. */
  user?: UserInfo;
  decision?: AuthorizationDecision;
  /** The `reason` of the Status it is answered with, if that is an error. */
  failure?: string;
  /** Of a creation: the name in its body, where it has one. */
  objectName?: string;
}

export type AuditStage = 'ResponseStarted' | 'ResponseComplete';

export interface AuditSubject {
  auditId: string;
  stage: AuditStage;
  exchange: Pick<ApiExchange, 'method' | 'path' | 'query' | 'headers' | 'remoteAddress'>;
  info: RequestInfo | undefined;
  trace: RequestTrace;
  /** Of the answer. */
  code: number;
  receivedMs: number;
  nowMs: number;
}

/** Whose user acts: absent for operators, nodes and the server's own parts. */
export const TENANT_ANNOTATION = 'hypernetes.io/tenant';
const LOST_ANNOTATION = 'hypernetes.io/lost-events';
const DECISION_ANNOTATION = 'authorization.k8s.io/decision';
export const REASON_ANNOTATION = 'authorization.k8s.io/reason';

const API_VERSION = 'audit.k8s.io/v1';
/** kube-apiserver cuts user agents there. */
const USER_AGENT_LENGTH_MAX = 1024;
/** Names of Kubernetes are shorter; what clients send in their place need not be. */
const NAME_LENGTH_MAX = 512;
const REASON_LENGTH_MAX = 1024;
const PATH_LENGTH_MAX = 2048;
const GROUPS_MAX = 64;
const EXTRA_MAX = 16;

/** Parameters that say what was asked for. Others, as a command to execute, may hold secrets. */
const SAFE_PARAMETERS = [
  ...['watch', 'limit', 'labelSelector', 'fieldSelector', 'resourceVersion'],
  ...['resourceVersionMatch', 'timeoutSeconds', 'allowWatchBookmarks', 'dryRun'],
  ...['fieldManager', 'container', 'follow', 'previous', 'stdin', 'stdout', 'stderr', 'tty'],
];

/**
 * One line of the audit log: an Event of audit.k8s.io/v1, level Metadata, as JSON without any
 * control character. Bodies, credentials and the texts of errors, which repeat what was sent, are
 * not in it; every part has a limit of length.
 */
export function auditLine(subject: AuditSubject): string {
  const { exchange, info, trace, code } = subject;
  const { authenticated, user, decision } = trace;
  const userAgent = exchange.headers['user-agent'];
  const event = {
    kind: 'Event',
    apiVersion: API_VERSION,
    level: 'Metadata',
    auditID: subject.auditId,
    stage: subject.stage,
    requestURI: requestUri(exchange),
    verb: cut(info?.verb ?? exchange.method.toLowerCase(), NAME_LENGTH_MAX),
    user: authenticated ? userFields(authenticated) : {},
    ...(user && user !== authenticated ? { impersonatedUser: userFields(user) } : {}),
    ...(exchange.remoteAddress ? { sourceIPs: [exchange.remoteAddress] } : {}),
    ...(userAgent ? { userAgent: cut(userAgent, USER_AGENT_LENGTH_MAX) } : {}),
    ...(info?.isResourceRequest ? { objectRef: objectRef(info, trace) } : {}),
    responseStatus: {
      metadata: {},
      ...(code >= 400 ? { status: 'Failure', reason: trace.failure ?? '' } : {}),
      code,
    },
    requestReceivedTimestamp: rfc3339Micro(subject.receivedMs),
    stageTimestamp: rfc3339Micro(subject.nowMs),
    annotations: {
      ...(decision
        ? {
            [DECISION_ANNOTATION]: decision.decision === 'allow' ? 'allow' : 'forbid',
            [REASON_ANNOTATION]: cut(decision.reason, REASON_LENGTH_MAX),
          }
        : {}),
      ...(user?.tenant === undefined ? {} : { [TENANT_ANNOTATION]: user.tenant }),
    },
  };
  return `${printable(JSON.stringify(event))}\n`;
}

/** Says in the log itself that, and how much, is missing before this line. */
export function lossLine(count: number, auditId: string, nowMs: number): string {
  const time = rfc3339Micro(nowMs);
  const event = {
    ...{ kind: 'Event', apiVersion: API_VERSION, level: 'Metadata', auditID: auditId },
    ...{ stage: 'Panic', requestURI: '', verb: '', user: { username: 'system:apiserver' } },
    ...{ requestReceivedTimestamp: time, stageTimestamp: time },
    annotations: { [LOST_ANNOTATION]: String(count) },
  };
  return `${JSON.stringify(event)}\n`;
}

/** Cut at a whole character. */
function cut(text: string, length: number): string {
  return text.length <= length ? text : text.slice(0, length).toWellFormed();
}

/** C1 controls, line separators and what turns the direction of text around. */
const UNPRINTABLE = /[\u007f-\u009f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g;

/** The same JSON, with every character escaped that a terminal might obey. */
function printable(json: string): string {
  return json.replace(
    UNPRINTABLE,
    (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}

function requestUri({ path, query }: AuditSubject['exchange']): string {
  const short = cut(path, PATH_LENGTH_MAX);
  if (query.size === 0) return short;
  const kept = new URLSearchParams();
  for (const name of SAFE_PARAMETERS) {
    const value = query.get(name);
    if (value !== null) kept.set(name, cut(value, NAME_LENGTH_MAX));
  }
  return kept.size > 0 ? `${short}?${kept}` : short;
}

function objectRef(info: RequestInfo, trace: RequestTrace) {
  const part = (key: string, value: string) =>
    value ? { [key]: cut(value, NAME_LENGTH_MAX) } : undefined;
  return {
    ...part('resource', info.resource),
    ...part('namespace', info.namespace),
    ...part('name', info.name || trace.objectName || ''),
    ...part('apiGroup', info.group),
    ...part('apiVersion', info.version),
    ...part('subresource', info.subresource),
  };
}

/** Authenticators hand out the same object for the same credential, mostly. */
const fieldsByUser = new WeakMap<UserInfo, object>();

function userFields(user: UserInfo): object {
  let fields = fieldsByUser.get(user);
  if (!fields) fieldsByUser.set(user, (fields = readUser(user)));
  return fields;
}

function readUser({ name, uid, groups, extra }: UserInfo): object {
  const text = (value: string) => cut(value, NAME_LENGTH_MAX);
  const extras = Object.entries(extra).slice(0, EXTRA_MAX);
  return {
    username: text(name),
    ...(uid ? { uid: text(uid) } : {}),
    ...(groups.length > 0 ? { groups: groups.slice(0, GROUPS_MAX).map(text) } : {}),
    ...(extras.length > 0
      ? {
          extra: Object.fromEntries(
            extras.map(([key, values]) => [text(key), values.slice(0, EXTRA_MAX).map(text)]),
          ),
        }
      : {}),
  };
}
