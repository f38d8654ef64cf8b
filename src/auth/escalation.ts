import type { AuthorizationAttributes, Authorizer, UserInfo } from '../api/auth.ts';
import type { KubeObject } from '../api/object.ts';
import { notFound, StatusError } from '../api/status.ts';
import type { PolicyRule, Rbac, RoleRef } from './rbac.ts';

const GROUP = 'rbac.authorization.k8s.io';
const PLURAL: Record<string, string> = {
  Role: 'roles',
  ClusterRole: 'clusterroles',
  RoleBinding: 'rolebindings',
  ClusterRoleBinding: 'clusterrolebindings',
};

/** Of a rule with many verbs, groups and resources only so many combinations are examined. */
const COMBINATIONS_LIMIT = 100_000;

export interface EscalationRequest {
  user: UserInfo;
  /** The Role, ClusterRole, RoleBinding or ClusterRoleBinding to be written. */
  object: KubeObject;
  /** What it replaces. */
  oldObject?: KubeObject;
}

/**
 * Nobody may hand out more than they hold: who writes a role must hold its rules (or the verb
 * `escalate` on it), and who writes a binding those of the role it refers to (or the verb `bind`).
 *
 * @throws StatusError Forbidden naming the rules that are missing; NotFound when a binding refers
 *   to a role that does not exist, as its rules cannot be judged
 */
export function checkEscalation(
  rbac: Rbac,
  authorizer: Authorizer,
  { user, object, oldObject }: EscalationRequest,
): void {
  const resource = PLURAL[object.kind];
  if (!resource || user.groups.includes('system:masters')) return;
  const namespace = object.metadata.namespace ?? '';
  const isRole = object.kind === 'Role' || object.kind === 'ClusterRole';
  const ref = object.roleRef as RoleRef;
  const subject: RoleRef = isRole ? { kind: object.kind, name: object.metadata.name ?? '' } : ref;
  const permits = authorizer.authorize(
    roleAttributes(user, isRole ? 'escalate' : 'bind', subject, namespace),
  );
  if (permits.decision === 'allow') return;

  const granted = isRole
    ? ((object.rules as PolicyRule[] | undefined) ?? [])
    : rbac.rulesOfRole(ref, namespace);
  if (!granted) throw notFound(GROUP, PLURAL[ref.kind] ?? '', ref.name);
  if (oldObject && isSameGrant(object, oldObject)) return;
  checkAggregation(rbac, user, object);
  const missing = uncoveredRules(rbac.rulesFor(user, namespace).rules, granted);
  if (missing.length) throw forbid(user, object, resource, missing);
}

/** A selector grants whatever it may ever match: only who holds everything may set one. */
function checkAggregation(rbac: Rbac, user: UserInfo, object: KubeObject): void {
  if (object.kind !== 'ClusterRole' || !object.aggregationRule) return;
  const all: PolicyRule[] = [
    { verbs: ['*'], apiGroups: ['*'], resources: ['*'] },
    { verbs: ['*'], nonResourceURLs: ['*'] },
  ];
  const missing = uncoveredRules(rbac.rulesFor(user, '').rules, all);
  if (!missing.length) return;
  const details = { group: GROUP, kind: 'clusterroles', name: object.metadata.name };
  const message =
    `clusterroles.${GROUP} "${object.metadata.name}" is forbidden: ` +
    'must have cluster-admin privileges to use the aggregationRule';
  throw new StatusError('Forbidden', message, { details });
}

function isSameGrant(object: KubeObject, oldObject: KubeObject): boolean {
  const grant = (from: KubeObject) =>
    JSON.stringify([from.rules ?? [], from.aggregationRule, from.subjects ?? [], from.roleRef]);
  return grant(object) === grant(oldObject);
}

function roleAttributes(
  user: UserInfo,
  verb: string,
  role: RoleRef,
  namespace: string,
): AuthorizationAttributes {
  return {
    user,
    verb,
    isResourceRequest: true,
    group: GROUP,
    version: 'v1',
    resource: PLURAL[role.kind] ?? '',
    subresource: '',
    // A ClusterRole bound in one namespace may be permitted there.
    namespace,
    name: role.name,
    path: '',
  };
}

function forbid(
  user: UserInfo,
  object: KubeObject,
  resource: string,
  missing: PolicyRule[],
): StatusError {
  const groups = user.groups.map((group) => JSON.stringify(group)).join(' ');
  const name = object.metadata.name ?? '';
  const list = missing.map(formatRule).sort().join('\n');
  const message =
    `${resource}.${GROUP} "${name}" is forbidden: user "${user.name}" (groups=[${groups}]) ` +
    `is attempting to grant RBAC permissions not currently held:\n${list}`;
  return new StatusError('Forbidden', message, { details: { name, group: GROUP, kind: resource } });
}

/** A rule in the compact form in which Kubernetes prints it. */
function formatRule(rule: PolicyRule): string {
  const list = (name: string, values: string[] | undefined) =>
    values?.length ? [`${name}:[${values.map((value) => JSON.stringify(value)).join(' ')}]`] : [];
  const parts = [
    ...list('APIGroups', rule.apiGroups),
    ...list('Resources', rule.resources),
    ...list('NonResourceURLs', rule.nonResourceURLs),
    ...list('ResourceNames', rule.resourceNames),
    ...list('Verbs', rule.verbs),
  ];
  return `{${parts.join(', ')}}`;
}

/**
 * The parts of `granted` that `held` does not contain, as rules that name one thing each. A
 * wildcard is contained only in a wildcard. Verbs missing on the same thing are joined.
 */
export function uncoveredRules(held: PolicyRule[], granted: PolicyRule[]): PolicyRule[] {
  const missing = new Map<string, PolicyRule>();
  let examined = 0;
  for (const rule of granted) {
    for (const single of singles(rule)) {
      examined += 1;
      if (examined > COMBINATIONS_LIMIT) {
        throw new StatusError('Forbidden', `role has more than ${COMBINATIONS_LIMIT} permissions`);
      }
      if (held.some((own) => contains(own, single))) continue;
      const { verbs, ...thing } = single;
      const key = JSON.stringify(thing);
      const known = missing.get(key);
      if (!known) missing.set(key, single);
      else known.verbs = [...new Set([...known.verbs, ...verbs])];
    }
  }
  return [...missing.values()];
}

/** A rule as rules of one verb on one thing. */
function* singles(rule: PolicyRule): Iterable<PolicyRule> {
  for (const verb of rule.verbs ?? []) {
    for (const url of rule.nonResourceURLs ?? []) yield { verbs: [verb], nonResourceURLs: [url] };
    for (const group of rule.apiGroups ?? []) {
      for (const resource of rule.resources ?? []) {
        const base = { verbs: [verb], apiGroups: [group], resources: [resource] };
        if (!rule.resourceNames?.length) yield base;
        for (const name of rule.resourceNames ?? []) yield { ...base, resourceNames: [name] };
      }
    }
  }
}

function contains(own: PolicyRule, single: PolicyRule): boolean {
  const has = (list: string[] | undefined, values: string[] | undefined) =>
    !!list && (list.includes('*') || (values ?? []).every((value) => list.includes(value)));
  if (!has(own.verbs, single.verbs)) return false;
  const url = single.nonResourceURLs?.[0];
  if (url !== undefined) return !!own.nonResourceURLs?.some((pattern) => urlContains(pattern, url));
  const resource = single.resources?.[0] ?? '';
  const slash = resource.indexOf('/');
  const anyOfSubresource = slash >= 0 ? `*${resource.slice(slash)}` : undefined;
  const hasResource =
    has(own.resources, [resource]) ||
    (anyOfSubresource !== undefined && !!own.resources?.includes(anyOfSubresource));
  const names = own.resourceNames ?? [];
  const hasName =
    !names.length ||
    (!!single.resourceNames?.length && single.resourceNames.every((name) => names.includes(name)));
  return hasResource && hasName && has(own.apiGroups, single.apiGroups);
}

function urlContains(pattern: string, url: string): boolean {
  if (pattern === '*' || pattern === url) return true;
  return pattern.endsWith('*') && url.startsWith(pattern.slice(0, -1));
}
