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
