import { StatusError, badRequest, invalid } from '../../api/status.ts';
import type { StatusCause } from '../../api/status.ts';
import { isTrue } from '../server/path.ts';
import { decodeContinue } from './continue.ts';
import type { Continue } from './continue.ts';

export interface ListOptions {
  limit: number;
  continue: Continue | undefined;
  labelSelector: string;
  fieldSelector: string;
  /** undefined: not given, so the answer must be the newest there is. */
  resourceVersion: number | undefined;
  match: 'Exact' | 'NotOlderThan' | undefined;
  timeoutSeconds: number | undefined;
  allowWatchBookmarks: boolean;
}

const MATCHES = new Set(['Exact', 'NotOlderThan']);
const LIMIT_MAX = 1_000_000;

/**
 * The query of a list or watch, with Kubernetes' rules about what goes together.
 *
 * @throws StatusError 400 for malformed values, 422 for combinations that are not allowed
 */
export function parseListOptions(query: URLSearchParams, isWatch: boolean): ListOptions {
  const token = query.get('continue') ?? '';
  const versionText = query.get('resourceVersion') ?? '';
  const match = query.get('resourceVersionMatch') ?? '';
  const causes = isWatch ? watchCauses(query, match) : listCauses(versionText, match, token);
  if (causes.length > 0) throw invalid('meta.k8s.io', 'ListOptions', '', causes);
  const version = parseResourceVersion(versionText);
  if (token && version) {
    throw badRequest('specifying resource version is not allowed when using continue');
  }
  return {
    limit: parseInteger(query, 'limit', LIMIT_MAX) ?? 0,
    continue: token ? decodeContinue(token) : undefined,
    labelSelector: query.get('labelSelector') ?? '',
    fieldSelector: query.get('fieldSelector') ?? '',
    resourceVersion: version,
    match: (match || undefined) as ListOptions['match'],
    timeoutSeconds: parseInteger(query, 'timeoutSeconds', Number.MAX_SAFE_INTEGER),
    allowWatchBookmarks: isTrue(query.get('allowWatchBookmarks')),
  };
}

/**
 * Streaming lists are refused as a server refuses them that does not have the feature: informers
 * then list and watch, where silence would leave them waiting for a bookmark.
 */
function watchCauses(query: URLSearchParams, match: string): StatusCause[] {
  const causes: StatusCause[] = [];
  if (query.has('sendInitialEvents')) {
    const message =
      'sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled';
    causes.push(forbidden('sendInitialEvents', message));
  }
  if (match) {
    const message =
      'resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided';
    causes.push(forbidden('resourceVersionMatch', message));
  }
  return causes;
}

function listCauses(version: string, match: string, token: string): StatusCause[] {
  if (!match) return [];
  if (!version) {
    const message = 'resourceVersionMatch is forbidden unless resourceVersion is provided';
    return [forbidden('resourceVersionMatch', message)];
  }
  if (token) {
    const message = 'resourceVersionMatch is forbidden when continue is provided';
    return [forbidden('resourceVersionMatch', message)];
  }
  if (!MATCHES.has(match)) {
    const supported = [...MATCHES, ''].map((value) => JSON.stringify(value)).join(', ');
    const message = `Unsupported value: ${JSON.stringify(match)}: supported values: ${supported}`;
    return [{ reason: 'FieldValueNotSupported', field: 'resourceVersionMatch', message }];
  }
  if (match === 'Exact' && version === '0') {
    const message = 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"';
    return [forbidden('resourceVersionMatch', message)];
  }
  return [];
}

function forbidden(field: string, message: string): StatusCause {
  return { reason: 'FieldValueForbidden', field, message: `Forbidden: ${message}` };
}

/** @returns undefined for the empty string */
export function parseResourceVersion(text: string): number | undefined {
  if (text === '') return undefined;
  const value = Number(text);
  if (!/^[0-9]+$/.test(text) || !Number.isSafeInteger(value)) {
    throw badRequest(`Invalid value: ${JSON.stringify(text)}: the resourceVersion is not a number`);
  }
  return value;
}

function parseInteger(query: URLSearchParams, name: string, max: number): number | undefined {
  const text = query.get(name);
  if (text === null || text === '') return undefined;
  if (!/^[0-9]+$/.test(text)) {
    const found = JSON.stringify(text);
    const message = `the query parameter "${name}" is ${found}: it has to be a number`;
    throw new StatusError('BadRequest', message);
  }
  return Math.min(Number(text), max);
}
