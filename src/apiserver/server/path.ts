import { StatusError } from '../../api/status.ts';

/**
 * What a request is about, read from its method, path and query alone: the grammar is
 * kube-apiserver's RequestInfo, on which RBAC's attributes are defined.
 */
export interface RequestInfo {
  isResourceRequest: boolean;
  /** Unescaped where it names an API object; as sent otherwise. */
  path: string;
  verb: string;
  group: string;
  version: string;
  namespace: string;
  resource: string;
  subresource: string;
  name: string;
  /** What follows the subresource, escaped as sent: for proxies. */
  rest: string;
  /** Of a collection: the field selector as it was sent, for authorizers that look at it. */
  fieldSelector: string;
}

const METHOD_VERBS: Record<string, string> = {
  POST: 'create',
  GET: 'get',
  HEAD: 'get',
  PUT: 'update',
  PATCH: 'patch',
  DELETE: 'delete',
};

/** Below `namespaces/{name}/` these are subresources of the namespace, not resources in it. */
const NAMESPACE_SUBRESOURCES = new Set(['status', 'finalize']);

export function parseRequestInfo(
  method: string,
  path: string,
  query: URLSearchParams,
): RequestInfo {
  const info: RequestInfo = {
    isResourceRequest: false,
    path,
    verb: method.toLowerCase(),
    group: '',
    version: '',
    namespace: '',
    resource: '',
    subresource: '',
    name: '',
    rest: '',
    fieldSelector: '',
  };
  const parts = path.split('/').filter((part) => part !== '');
  const isCore = parts[0] === 'api';
  if (!isCore && parts[0] !== 'apis') return info;
  const prefixLength = isCore ? 2 : 3;
  if (parts.length <= prefixLength) return info;
  info.isResourceRequest = true;
  info.group = isCore ? '' : decodeSegment(parts[1]);
  info.version = decodeSegment(parts[prefixLength - 1]);
  readResourcePath(info, parts.slice(prefixLength), METHOD_VERBS[method] ?? '');
  if (info.name === '') refineCollectionVerb(info, query);
  return info;
}

function readResourcePath(info: RequestInfo, segments: string[], verb: string): void {
  let parts = segments;
  info.verb = verb;
  if (parts[0] === 'watch' && parts.length > 1) {
    // The old spelling of ?watch=true; client libraries of other languages still offer it.
    parts = parts.slice(1);
    info.verb = 'watch';
  }
  if (parts[0] === 'namespaces' && parts.length > 1) {
    info.namespace = decodeSegment(parts[1]);
    if (parts.length > 2 && !NAMESPACE_SUBRESOURCES.has(parts[2] as string)) {
      parts = parts.slice(2);
    }
  }
  info.resource = decodeSegment(parts[0]);
  if (parts.length > 1) info.name = decodeSegment(parts[1]);
  if (parts.length > 2) info.subresource = decodeSegment(parts[2]);
  if (parts.length > 3) info.rest = `/${parts.slice(3).join('/')}`;
}

/** Without a name, a GET is a list or a watch, and a DELETE one of the collection. */
function refineCollectionVerb(info: RequestInfo, query: URLSearchParams): void {
  info.fieldSelector = query.get('fieldSelector') ?? '';
  if (info.verb === 'delete') info.verb = 'deletecollection';
  if (info.verb !== 'get' && info.verb !== 'watch') return;
  if (info.verb === 'get') info.verb = isTrue(query.get('watch')) ? 'watch' : 'list';
  // A list of one name is authorized like a get of it: kubelets and `kubectl get -w` need that.
  const match = /(?:^|,)metadata\.name==?([^,=!]+)(?:,|$)/.exec(info.fieldSelector);
  if (match) info.name = match[1] as string;
}

/** How Kubernetes reads a boolean query parameter: present is true unless it says otherwise. */
export function isTrue(value: string | null): boolean {
  return value !== null && value !== '0' && value.toLowerCase() !== 'false';
}

function decodeSegment(segment: string | undefined): string {
  try {
    return decodeURIComponent(segment ?? '');
  } catch {
    throw new StatusError('BadRequest', `the path segment "${segment}" is not escaped correctly`);
  }
}
