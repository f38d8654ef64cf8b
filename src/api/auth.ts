/** Who asks. Filled by an authenticator, read by authorizers, admission and audit. */
export interface UserInfo {
  name: string;
  uid: string;
  groups: string[];
  extra: Record<string, string[]>;
}

/** What is asked, in the words of RBAC. */
export interface AuthorizationAttributes {
  user: UserInfo;
  /** get, list, watch, create, update, patch, delete, deletecollection, or any verb. */
  verb: string;
  /** False for paths such as /healthz. */
  isResourceRequest: boolean;
  group: string;
  version: string;
  resource: string;
  subresource: string;
  namespace: string;
  name: string;
  path: string;
}

export interface AuthorizationDecision {
  decision: 'allow' | 'deny' | 'no-opinion';
  /** For the client's error message and the audit log. */
  reason: string;
}

/** Several are asked in order; the first that is not of no opinion decides; none is a denial. */
export interface Authorizer {
  authorize(attributes: AuthorizationAttributes): AuthorizationDecision;
}

/** The credentials of one request, as the TLS and HTTP layers have found them. */
export interface AuthenticationRequest {
  /** The subject of a client certificate whose chain and validity the TLS layer has verified. */
  clientCertificate?: { commonName: string; organizations: string[] };
  bearerToken?: string;
  /** For whom a token has to be meant. Empty or absent: the API server itself. */
  audiences?: string[];
}

export interface AuthenticatedUser {
  user: UserInfo;
  /** The audiences that the token and the request have in common. */
  audiences?: string[];
}

/**
 * Finds out who asks. Several are asked in order; the first that recognises a credential decides.
 *
 * @returns undefined when the request carries no credential of this authenticator's kind
 * @throws StatusError Unauthorized when it carries one that is not valid
 */
export interface Authenticator {
  authenticate(request: AuthenticationRequest): Promise<AuthenticatedUser | undefined>;
}

export const ANONYMOUS: UserInfo = {
  name: 'system:anonymous',
  uid: '',
  groups: ['system:unauthenticated'],
  extra: {},
};

/** The group of every user that has proved who it is; the server adds it. */
export const AUTHENTICATED_GROUP = 'system:authenticated';

/** A rule as `rbac.authorization.k8s.io/v1` PolicyRule writes it. */
export interface PolicyRule {
  verbs: string[];
  apiGroups?: string[];
  resources?: string[];
  resourceNames?: string[];
  nonResourceURLs?: string[];
}

/** What a user may do, as rules. Serves SelfSubjectRulesReview and the check against escalation. */
export interface RuleResolver {
  /** All rules that hold for `user` in `namespace` (empty: cluster-wide ones only). */
  rulesFor(user: UserInfo, namespace: string): PolicyRule[];
  /**
   * Those of `rules` that `user` does not hold, and so must not give to anybody in `namespace`
   * (empty: the whole cluster).
   */
  missingRules(user: UserInfo, namespace: string, rules: PolicyRule[]): PolicyRule[];
}

/** To whom and for how long a service account's token is given. */
export interface ServiceAccountTokenRequest {
  namespace: string;
  name: string;
  uid: string;
  /** Empty means the API server's own audience. */
  audiences: string[];
  expirationSeconds: number;
  /** The token dies with this object. */
  boundObject?: { apiVersion: string; kind: string; name: string; uid: string };
  /** The node of a bound pod. */
  node?: { name: string; uid: string };
}

export interface ServiceAccountTokenIssuer {
  issue(
    request: ServiceAccountTokenRequest,
  ): Promise<{ token: string; expirationTimestamp: string; audiences: string[] }>;
  /** Body of `/.well-known/openid-configuration`. */
  openidConfiguration(): Record<string, unknown>;
  /** Body of `/openid/v1/jwks`. */
  jwks(): Record<string, unknown>;
}
