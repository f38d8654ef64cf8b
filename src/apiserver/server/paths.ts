import {
  aggregatedDiscovery,
  apiGroup,
  apiGroupList,
  apiResourceList,
  apiVersions,
} from '../../api/schema/discovery.ts';
import type { OpenApiDocument } from '../../api/schema/openapi.ts';
import { openApiV3Document, openApiV3Index } from '../../api/schema/openapi.ts';
import { OPENAPI_V2_PROTOBUF, openApiV2Documents } from '../../api/schema/openapi-v2.ts';
import { StatusError } from '../../api/status.ts';
import { handleAudit } from '../audit/handler.ts';
import { renderAudit } from '../audit/metrics.ts';
import { parseAccept } from '../codec/negotiate.ts';
import { bytesReply, encodeJson, jsonReply, textReply } from '../codec/reply.ts';
import type { RequestContext } from '../context.ts';
import { EMPTY } from './exchange.ts';
import type { ApiReply } from './exchange.ts';
import { handleUsage } from '../usage/handler.ts';
import { renderUsage } from '../usage/metrics.ts';
import { versionInfo } from './version.ts';

/** Answers for paths that are not resources. */
export async function answerPath(context: RequestContext): Promise<ApiReply> {
  const { exchange } = context;
  const path = exchange.path.length > 1 ? exchange.path.replace(/\/+$/, '') : exchange.path;
  if (exchange.method !== 'GET' && exchange.method !== 'HEAD') {
    throw new StatusError('MethodNotAllowed', 'only GET is allowed on this path');
  }
  const answer = PATHS[path] ?? prefixed(path);
  return answer ? answer(context) : textReply(404, '404 page not found\n');
}

type PathAnswer = (context: RequestContext) => ApiReply | Promise<ApiReply>;

const PATHS: Record<string, PathAnswer | undefined> = Object.assign(Object.create(null), {
  '/': () => jsonReply(200, { paths: Object.keys(PATHS) }),
  '/healthz': health,
  '/livez': health,
  '/readyz': health,
  '/version': () => jsonReply(200, versionInfo),
  '/api': (context: RequestContext) => discovery(context, 'api'),
  '/apis': (context: RequestContext) => discovery(context, 'apis'),
  '/openapi/v2': openApiV2,
  '/openapi/v3': ({ server }: RequestContext) => jsonReply(200, openApiV3Index(server.schema)),
  '/metrics': metrics,
  '/hypernetes/audit': handleAudit,
  '/hypernetes/usage': handleUsage,
  '/.well-known/openid-configuration': (context: RequestContext) =>
    keys(context, (tokens) => tokens.openidConfiguration(), 'application/json'),
  '/openid/v1/jwks': (context: RequestContext) =>
    keys(context, (tokens) => tokens.jwks(), 'application/jwk-set+json'),
});

function prefixed(path: string): PathAnswer | undefined {
  const parts = path.split('/').slice(1);
  if (parts[0] === 'api' && parts.length === 2) return resourceList('', parts[1] as string);
  if (parts[0] === 'apis' && parts.length === 2) {
    return ({ server }) => found(apiGroup(server.schema, parts[1] as string));
  }
  if (parts[0] === 'apis' && parts.length === 3) {
    return resourceList(parts[1] as string, parts[2] as string);
  }
  const openApi = /^\/openapi\/v3\/(?:api|apis)\/(.+)$/.exec(path);
  if (openApi) return (context) => openApiDocument(context, openApi[1] as string);
  if (/^\/(healthz|livez|readyz)\//.test(path)) return health;
  return undefined;
}

function resourceList(group: string, version: string): PathAnswer {
  return ({ server }) => found(apiResourceList(server.schema, group, version));
}

/** The address carries the content's hash, so a client that has it need never ask again. */
function openApiDocument(context: RequestContext, groupVersion: string): ApiReply {
  const { server, exchange } = context;
  const document = openApiV3Document(server.schema, groupVersion);
  if (!document) return textReply(404, '404 page not found\n');
  const reply = documentReply(context, document, 'application/json');
  if (exchange.query.has('hash')) reply.headers['cache-control'] = 'public, immutable';
  return reply;
}

function openApiV2(context: RequestContext): ApiReply {
  const { server, exchange } = context;
  const [first] = parseAccept(exchange.headers.accept ?? '');
  const { json, protobuf } = openApiV2Documents(server.schema);
  const reply =
    first && Object.values(OPENAPI_V2_PROTOBUF).includes(first.type)
      ? documentReply(context, protobuf, OPENAPI_V2_PROTOBUF.answered)
      : documentReply(context, json, 'application/json');
  reply.headers.vary = 'Accept';
  return reply;
}

/** Clients ask again with what they have; mostly that is still right. */
function documentReply(
  { exchange }: RequestContext,
  document: OpenApiDocument,
  contentType: string,
): ApiReply {
  const reply = bytesReply(200, document.bytes, contentType);
  reply.headers.etag = `"${document.hash}"`;
  if (exchange.headers['if-none-match'] !== reply.headers.etag) return reply;
  return { ...reply, status: 304, body: EMPTY };
}

function found(document: object | undefined): ApiReply {
  return document ? jsonReply(200, document) : textReply(404, '404 page not found\n');
}

function health({ server, exchange }: RequestContext): ApiReply {
  if (server.closing.aborted) return textReply(503, 'the server is shutting down');
  const checks = ['ping', 'storage'];
  if (!exchange.query.has('verbose')) return textReply(200, 'ok');
  const lines = checks.map((check) => `[+]${check} ok`);
  const [, name] = exchange.path.split('/');
  return textReply(200, `${lines.join('\n')}\n${name} check passed\n`);
}

function metrics({ server }: RequestContext): ApiReply {
  const usage = server.usage ? renderUsage(server.usage) : '';
  const audit = server.auditLog ? renderAudit(server.auditLog) : '';
  const reply = textReply(200, server.metrics.render(server.store) + audit + usage);
  reply.headers['content-type'] = 'text/plain; version=0.0.4; charset=utf-8';
  return reply;
}

function keys(
  { server }: RequestContext,
  read: (tokens: NonNullable<RequestContext['server']['tokens']>) => unknown,
  contentType: string,
): ApiReply {
  if (!server.tokens) return textReply(404, '404 page not found\n');
  return bytesReply(200, encodeJson(read(server.tokens)), contentType);
}

const AGGREGATED = { g: 'apidiscovery.k8s.io', v: 'v2', as: 'APIGroupDiscoveryList' };

/** Everything in one document where the client knows how, else the list of groups. */
function discovery(context: RequestContext, root: 'api' | 'apis'): ApiReply {
  const { server, exchange } = context;
  const wantsAll = parseAccept(exchange.headers.accept ?? '').some(({ parameters }) =>
    Object.entries(AGGREGATED).every(([name, value]) => parameters[name] === value),
  );
  if (wantsAll) {
    const type = Object.entries(AGGREGATED)
      .map(([name, value]) => `;${name}=${value}`)
      .join('');
    const reply = jsonReply(200, aggregatedDiscovery(server.schema, root));
    reply.headers['content-type'] = `application/json${type}`;
    reply.headers.vary = 'Accept';
    return reply;
  }
  if (root === 'apis') return jsonReply(200, apiGroupList(server.schema));
  return jsonReply(200, apiVersions(server.advertiseAddress));
}
