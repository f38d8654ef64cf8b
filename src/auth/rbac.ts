import type {
  AuthorizationAttributes,
  AuthorizationDecision,
  AuthorizationStep,
  Authorizer,
  UserInfo,
} from '../api/auth.ts';
import type { KubeObject } from '../api/object.ts';
import { SERVICE_ACCOUNT_USER_PREFIX } from './service-account-tokens.ts';

/** rbac/v1 PolicyRule, as far as it is evaluated. */
export interface PolicyRule {
  verbs: string[];
  apiGroups?: string[];
  resources?: string[];
  resourceNames?: string[];
  nonResourceURLs?: string[];
}

export interface RoleRef {
  kind: 'Role' | 'ClusterRole' | string;
  name: string;
}

export interface Subject {
  kind: 'User' | 'Group' | 'ServiceAccount' | string;
  name: string;
  namespace?: string;
  apiGroup?: string;
}

/** An authorizer that can say why. */
export type Explainer = Required<Authorizer>;

export interface Rbac extends Explainer {
  /** Takes in a created or changed role or binding; other kinds are ignored. */
  set(object: KubeObject): void;
  /** Forgets a deleted object. */
  delete(object: KubeObject): void;
  /**
   * The rules a user has in a namespace, cluster-wide ones included. With an empty namespace
   * cluster-wide ones only. `missing` names role references that lead nowhere.
   */
  rulesFor(user: UserInfo, namespace: string): { rules: PolicyRule[]; missing: string[] };
  /** The rules of a role, or undefined when there is no such role. */
  rulesOfRole(ref: RoleRef, namespace: string): PolicyRule[] | undefined;
}

const MASTERS_GROUP = 'system:masters';

interface Binding {
  /** How the reason of a decision names it. */
  description: string;
  /** Empty for a ClusterRoleBinding. */
  namespace: string;
  role: RoleRef;
  subjectKeys: string[];
}

interface Grant {
  granted: [Binding, subjectKey: string] | undefined;
  looked: Binding[];
  missing: string[];
}

function isMaster({ groups }: UserInfo): boolean {
  return groups.includes(MASTERS_GROUP);
}

/**
 * Role based access control. Bindings are found by subject and scope in hash maps that are
 * updated object by object, so a request costs what its user's own bindings cost, however many
 * others there are.
 */
export function createRbac(): Rbac {
  const roles = new Map<string, PolicyRule[]>();
  const bindings = new Map<string, Binding>();
  /** subject key → scope (namespace, or empty for the whole cluster) → bindings. */
  const bySubject = new Map<string, Map<string, Set<Binding>>>();

  const unlink = (id: string): void => {
    const binding = bindings.get(id);
    if (!binding) return;
    bindings.delete(id);
    for (const key of binding.subjectKeys) {
      const scopes = bySubject.get(key);
      const scope = scopes?.get(binding.namespace);
      scope?.delete(binding);
      if (!scope?.size) scopes?.delete(binding.namespace);
      if (!scopes?.size) bySubject.delete(key);
    }
  };

  const link = (id: string, binding: Binding): void => {
    bindings.set(id, binding);
    for (const key of binding.subjectKeys) {
      const scopes = getOrAdd(bySubject, key, () => new Map<string, Set<Binding>>());
      getOrAdd(scopes, binding.namespace, () => new Set<Binding>()).add(binding);
    }
  };

  function* bindingsOf(user: UserInfo, namespace: string): Iterable<[Binding, string]> {
    for (const key of subjectKeysOf(user)) {
      const scopes = bySubject.get(key);
      if (!scopes) continue;
      for (const binding of scopes.get('') ?? []) yield [binding, key];
      if (namespace) for (const binding of scopes.get(namespace) ?? []) yield [binding, key];
    }
  }

  const rulesOf = (ref: RoleRef, namespace: string): PolicyRule[] | undefined =>
    roles.get(ref.kind === 'Role' ? `Role/${namespace}/${ref.name}` : `ClusterRole//${ref.name}`);

  /** The binding that grants a request, and those that have been looked at before. */
  const grantOf = (attributes: AuthorizationAttributes): Grant => {
    const found: Grant = { granted: undefined, looked: [], missing: [] };
    const namespace = attributes.isResourceRequest ? attributes.namespace : '';
    for (const [binding, key] of bindingsOf(attributes.user, namespace)) {
      const rules = rulesOf(binding.role, binding.namespace);
      if (!rules) found.missing.push(describeMissing(binding.role));
      else if (rules.some((rule) => ruleAllows(rule, attributes))) {
        return { ...found, granted: [binding, key] };
      }
      found.looked.push(binding);
    }
    return found;
  };

  return {
    set(object) {
      const id = identify(object);
      if (object.kind === 'Role' || object.kind === 'ClusterRole') {
        roles.set(id, (object.rules as PolicyRule[] | undefined) ?? []);
      } else if (object.kind === 'RoleBinding' || object.kind === 'ClusterRoleBinding') {
        unlink(id);
        link(id, readBinding(object));
      }
    },

    delete(object) {
      const id = identify(object);
      roles.delete(id);
      unlink(id);
    },

    authorize(attributes) {
      if (isMaster(attributes.user)) return { decision: 'allow', reason: '' };
      const { granted, missing } = grantOf(attributes);
      if (granted) return { decision: 'allow', reason: describeGrant(...granted) };
      return { decision: 'no-opinion', reason: describeAllMissing(missing) };
    },

    explain(attributes, { forTenant }) {
      const { decision, reason } = this.authorize(attributes);
      const step = (...texts: string[]) => [
        { authorizer: 'RBAC', decision, reason: texts.filter(Boolean).join('; ') },
      ];
      if (isMaster(attributes.user)) {
        return step(`allowed by the group "${MASTERS_GROUP}", which may do everything`);
      }
      const isTold = (binding: Binding) => !forTenant || binding.namespace !== '';
      const { granted, looked } = grantOf(attributes);
      if (!granted) return step(describeBindings(looked.filter(isTold)), forTenant ? '' : reason);
      return step(isTold(granted[0]) ? reason : 'RBAC: allowed by a binding of the whole cluster');
    },

    rulesFor(user, namespace) {
      const found = new Set<PolicyRule>();
      const missing = new Set<string>();
      if (isMaster(user)) {
        found.add({ verbs: ['*'], apiGroups: ['*'], resources: ['*'] });
        found.add({ verbs: ['*'], nonResourceURLs: ['*'] });
      }
      for (const [binding] of bindingsOf(user, namespace)) {
        const rules = rulesOf(binding.role, binding.namespace);
        if (!rules) missing.add(describeMissing(binding.role));
        for (const rule of rules ?? []) {
          // Paths are outside of every namespace: a RoleBinding cannot grant them.
          if (!rule.nonResourceURLs?.length || !binding.namespace) found.add(rule);
        }
      }
      return { rules: [...found], missing: [...missing] };
    },

    rulesOfRole: rulesOf,
  };
}

function getOrAdd<K, V>(map: Map<K, V>, key: K, make: () => V): V {
  let value = map.get(key);
  if (value === undefined) map.set(key, (value = make()));
  return value;
}

function identify({ kind, metadata }: KubeObject): string {
  return `${kind}/${metadata.namespace ?? ''}/${metadata.name ?? ''}`;
}

function readBinding(object: KubeObject): Binding {
  const namespace = object.metadata.namespace ?? '';
  const subjects = (object.subjects as Subject[] | undefined) ?? [];
  const name = `${namespace ? `${object.metadata.name}/${namespace}` : object.metadata.name}`;
  return {
    description: `${object.kind} "${name}"`,
    namespace,
    role: object.roleRef as RoleRef,
    subjectKeys: [...new Set(subjects.flatMap((subject) => subjectKey(subject, namespace)))],
  };
}

function subjectKey(subject: Subject, bindingNamespace: string): string[] {
  switch (subject.kind) {
    case 'User':
      return [`User ${subject.name}`];
    case 'Group':
      return [`Group ${subject.name}`];
    case 'ServiceAccount': {
      const namespace = subject.namespace || bindingNamespace;
      if (!namespace) return [];
      return [`User ${SERVICE_ACCOUNT_USER_PREFIX}${namespace}:${subject.name}`];
    }
    default:
      return [];
  }
}

function subjectKeysOf(user: UserInfo): string[] {
  return [`User ${user.name}`, ...user.groups.map((group) => `Group ${group}`)];
}

function describeGrant(binding: Binding, subject: string): string {
  const space = subject.indexOf(' ');
  const quoted = `${subject.slice(0, space)} "${subject.slice(space + 1)}"`;
  const { kind, name } = binding.role;
  return `RBAC: allowed by ${binding.description} of ${kind} "${name}" to ${quoted}`;
}

function describeAllMissing(missing: string[]): string {
  return missing.length ? `RBAC: ${[...new Set(missing)].join(', ')}` : '';
}

const BINDINGS_TOLD_MAX = 20;

function describeBindings(bindings: Binding[]): string {
  if (bindings.length === 0) return 'no binding names the user or one of its groups here';
  const told = bindings
    .slice(0, BINDINGS_TOLD_MAX)
    .map(({ description, role }) => `${description} of ${role.kind} "${role.name}"`);
  const more = bindings.length - told.length;
  return `not granted by ${told.join(', ')}${more > 0 ? ` and ${more} more` : ''}`;
}

function describeMissing({ kind, name }: RoleRef): string {
  return `${kind.toLowerCase()}.rbac.authorization.k8s.io "${name}" not found`;
}

/** Whether one rule grants one request (rbac/v1 evaluation_helpers). */
export function ruleAllows(rule: PolicyRule, attributes: AuthorizationAttributes): boolean {
  if (!hasOrAll(rule.verbs, attributes.verb)) return false;
  if (!attributes.isResourceRequest) return pathMatches(rule.nonResourceURLs, attributes.path);
  return (
    hasOrAll(rule.apiGroups, attributes.group) &&
    resourceMatches(rule.resources, attributes.resource, attributes.subresource) &&
    (!rule.resourceNames?.length || rule.resourceNames.includes(attributes.name))
  );
}

function hasOrAll(list: string[] | undefined, value: string): boolean {
  return list !== undefined && (list.includes('*') || list.includes(value));
}

/** `pods`, `pods/log`, any of a subresource as in `*` + `/scale`, or everything as `*`. */
function resourceMatches(
  list: string[] | undefined,
  resource: string,
  subresource: string,
): boolean {
  if (!list) return false;
  if (list.includes('*')) return true;
  if (!subresource) return list.includes(resource);
  return list.includes(`${resource}/${subresource}`) || list.includes(`*/${subresource}`);
}

function pathMatches(list: string[] | undefined, path: string): boolean {
  return !!list?.some(
    (pattern) =>
      pattern === '*' ||
      pattern === path ||
      (pattern.endsWith('*') && path.startsWith(pattern.slice(0, -1))),
  );
}

/** Asks several authorizers; the first opinion decides, and none is a denial. */
export function createUnionAuthorizer(authorizers: Authorizer[]): Explainer {
  return {
    authorize(attributes): AuthorizationDecision {
      const reasons: string[] = [];
      for (const authorizer of authorizers) {
        const result = authorizer.authorize(attributes);
        if (result.decision !== 'no-opinion') return result;
        if (result.reason) reasons.push(result.reason);
      }
      return { decision: 'deny', reason: reasons.join(', ') };
    },

    explain(attributes, options) {
      const steps: AuthorizationStep[] = [];
      for (const authorizer of authorizers) {
        steps.push(...(authorizer.explain?.(attributes, options) ?? []));
        if (authorizer.authorize(attributes).decision !== 'no-opinion') break;
      }
      return steps;
    },
  };
}
