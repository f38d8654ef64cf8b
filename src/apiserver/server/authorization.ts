import type {
  AuthorizationAttributes,
  AuthorizationDecision,
  Authorizer,
  UserInfo,
} from '../../api/auth.ts';
import { StatusError, qualifiedResource } from '../../api/status.ts';
import type { RequestInfo } from './path.ts';

export function isAllowed(decision: AuthorizationDecision): boolean {
  return decision.decision === 'allow';
}

export function attributesOf(info: RequestInfo, user: UserInfo): AuthorizationAttributes {
  return {
    user,
    verb: info.verb,
    isResourceRequest: info.isResourceRequest,
    group: info.group,
    version: info.version,
    resource: info.resource,
    subresource: info.subresource,
    namespace: info.namespace,
    name: info.name,
    path: info.path,
    fieldSelector: info.fieldSelector,
  };
}

/** @throws StatusError 403 in the words that clients of Kubernetes know */
export function requireAuthorization(
  authorizer: Authorizer,
  attributes: AuthorizationAttributes,
): void {
  requireAllowed(attributes, authorizer.authorize(attributes));
}

/** The same, for what has been decided. */
export function requireAllowed(
  attributes: AuthorizationAttributes,
  decision: AuthorizationDecision,
): void {
  if (!isAllowed(decision)) throw forbiddenByAuthorizer(attributes, decision.reason);
}

export function forbiddenByAuthorizer(
  attributes: AuthorizationAttributes,
  reason: string,
): StatusError {
  const { user, verb, group, namespace, name } = attributes;
  const because = reason ? `: ${reason}` : '';
  const who = `User ${JSON.stringify(user.name)} cannot ${verb}`;
  if (!attributes.isResourceRequest) {
    const message = `forbidden: ${who} path ${JSON.stringify(attributes.path)}${because}`;
    return new StatusError('Forbidden', message, { details: {} });
  }
  const subject = qualifiedResource(group, attributes.resource);
  const what = attributes.subresource
    ? `${attributes.resource}/${attributes.subresource}`
    : attributes.resource;
  const scope = namespace ? `in the namespace "${namespace}"` : 'at the cluster scope';
  const message =
    `${subject}${name ? ` ${JSON.stringify(name)}` : ''} is forbidden: ${who} resource ` +
    `${JSON.stringify(what)} in API group ${JSON.stringify(group)} ${scope}${because}`;
  return new StatusError('Forbidden', message, {
    details: { ...(name ? { name } : {}), ...(group ? { group } : {}), kind: attributes.resource },
  });
}
