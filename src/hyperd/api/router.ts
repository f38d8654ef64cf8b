import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import { StatusError } from '../../api/status.ts';
import type { Clock } from '../../base/clock.ts';
import type { Daemon } from '../daemon/daemon.ts';
import { pathSegment } from './requests.ts';
import type { QueryOf, QueryParameters } from './query.ts';
import type { TypeName } from './types.ts';

/**
 * One thing that hyperd can be asked for. The table of them (`routes.ts`) is what the server goes
 * by, and what `/openapi.json` is made of.
 */
export interface Route {
  method: 'GET' | 'PUT' | 'POST' | 'DELETE';
  /** With its parameters in braces: `/v1/pods/{pod}`. */
  path: string;
  summary: string;
  query: QueryParameters;
  body: TypeName | typeof ARCHIVE | undefined;
  answer: Answer | undefined;
  /** Answers a request; undefined for one that asks for an upgrade. */
  handle: ((context: RouteContext, ...segments: string[]) => Promise<unknown>) | undefined;
  upgrade: Upgrade | undefined;
}

/** A JSON document, or a stream of another media type. */
export type Answer =
  | { type: TypeName; isList?: boolean; orLines?: TypeName }
  /** One JSON object a line. */
  | { lines: TypeName }
  | { media: string };

export interface Upgrade {
  protocol: 'hyper-stream' | 'hyper-raw';
  /** Whatever can be refused is refused here. What it returns runs until the stream is over. */
  open(context: UpgradeContext, ...segments: string[]): Promise<() => Promise<void>>;
}

/** The body of `image load`: a tar archive, which may be compressed. */
export const ARCHIVE = 'application/x-tar';
/** A log, as `api/hyperd.ts` has it. */
export const LOG_MEDIA = 'application/x-hyper-log';
/** Prometheus' text format. */
export const METRICS_MEDIA = 'text/plain; version=0.0.4';
export interface RouteContext {
  daemon: Daemon;
  request: IncomingMessage;
  response: ServerResponse;
  /** As the route's parameters read it. */
  query: object;
  /** Aborts when the client has gone. */
  signal: AbortSignal;
  body<T>(): Promise<T>;
}

export interface UpgradeContext {
  daemon: Daemon;
  clock: Clock;
  socket: Duplex;
  body<T>(): T;
}

interface RouteAbout<Q extends QueryParameters> {
  summary: string;
  query?: Q;
  body?: Route['body'];
  answer?: Answer;
}

type Handler<Q extends QueryParameters> = (
  context: RouteContext & { query: QueryOf<Q> },
  ...segments: string[]
) => Promise<unknown>;

/** A row of the table. */
export function route<Q extends QueryParameters = Record<string, never>>(
  method: Route['method'],
  path: string,
  { summary, query, body, answer }: RouteAbout<Q>,
  handle: Handler<Q>,
): Route {
  const handler = handle as Route['handle'];
  return {
    method,
    path,
    summary,
    query: query ?? {},
    body,
    answer,
    handle: handler,
    upgrade: undefined,
  };
}

/** A row for a request that is answered by 101 and a stream. */
export function upgradeRoute(
  path: string,
  { summary, body }: { summary: string; body?: TypeName },
  upgrade: Upgrade,
): Route {
  const none = { query: {}, answer: undefined, handle: undefined };
  return { method: 'POST', path, summary, body, upgrade, ...none };
}

export interface Match {
  route: Route;
  segments: string[];
}

/** Finds the row for a request. @throws StatusError NotFound, MethodNotAllowed */
export type Router = (method: string, path: string) => Match;

export function createRouter(routes: readonly Route[]): Router {
  const compiled = routes.map((each) => ({ each, pattern: patternOf(each.path) }));
  return (method, path) => {
    const matching = compiled.filter(({ pattern }) => pattern.test(path));
    const found = matching.find(({ each }) => each.method === method);
    if (found) {
      const segments = found.pattern.exec(path)?.slice(1) ?? [];
      return { route: found.each, segments: segments.map(pathSegment) };
    }
    const subject = `hyperd does not serve ${method} ${path.slice(0, 200)}`;
    if (matching.length === 0) throw new StatusError('NotFound', subject);
    const there = matching.map(({ each }) => each.method).join(', ');
    throw new StatusError('MethodNotAllowed', `${subject}, only ${there}`);
  };
}

function patternOf(path: string): RegExp {
  const segments = path.split('/').map((part) => (part.startsWith('{') ? '([^/]+)' : part));
  return new RegExp(`^${segments.join('/').replaceAll('.', '\\.')}$`);
}

/** Names of the parameters in a path. */
export function pathParameters(path: string): string[] {
  return [...path.matchAll(/\{([^}]+)\}/g)].map((match) => match[1] ?? '');
}
