/** Who asks. Filled by an authenticator, read by authorizers, admission and audit. */
export interface UserInfo {
  name: string;
  uid: string;
  groups: string[];
  extra: Record<string, string[]>;
  /**
   * The tenant that everything this user does is confined to. Absent for operators, components and
   * nodes. Set by authenticators alone: no header, name or group can claim it.
   */
  tenant?: string;
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
  /**
   * Of list, watch and deletecollection: the value of `metadata.name=` in the field selector.
   */
  name: string;
  path: string;
  /** The request's field selector as it was sent: a node may list only its own pods. */
  fieldSelector?: string;
}

export interface AuthorizationDecision {
  decision: 'allow' | 'deny' | 'no-opinion';
  /** For the client's error message and the audit log. */
  reason: string;
}

/** What one authorizer says to a request, and why: also why it has no opinion or denies. */
export interface AuthorizationStep extends AuthorizationDecision {
  authorizer: string;
}

/** For whom a decision is explained. */
export interface ExplainOptions {
  /** People of a tenant are not told the names of what is cluster-wide. */
  forTenant: boolean;
}

/** Several are asked in order; the first that is not of no opinion decides; none is a denial. */
export interface Authorizer {
  authorize(attributes: AuthorizationAttributes): AuthorizationDecision;
  /** How `authorize` comes to its decision, step by step; the last step is the decision. */
  explain?(attributes: AuthorizationAttributes, options: ExplainOptions): AuthorizationStep[];
}

/** The credentials of one request, as the TLS and HTTP layers have found them. */
export interface AuthenticationRequest {
  /** The subject of a client certificate whose chain and validity the TLS layer has verified. */
  clientCertificate?: { commonName: string; organizations: string[] };
  bearerToken?: string;
  /** For whom a token has to be meant. Empty or absent: the API server itself. */
  audiences?: string[];
  /** What the request is: credentials may be good for some requests only. */
  method?: string;
  path?: string;
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
