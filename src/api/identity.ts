/**
 * Where people and their rights come from: the embedded identity service or a real Keystone, one
 * interface and one conformance suite for both (`identity/conformance.ts`). The words are
 * Keystone's: users and groups live in domains, roles are assigned on projects, a token is scoped
 * to a project, to the whole system, or to nothing.
 */
export interface IdentityProvider {
  readonly kind: 'embedded' | 'keystone';

  /** Whether a bearer token may be one of ours, from its form alone: others are never sent on. */
  recognises(token: string): boolean;

  /**
   * What a token stands for now. Answers may come from a cache, no older than
   * `IDENTITY_CACHE_MS`: so long a revoked token may live on.
   *
   * @returns undefined when it is invalid, expired or revoked, or its user or project disabled
   * @throws IdentityUnavailableError when nobody can say; what is cached is served until it expires
   */
  validate(token: string, signal?: AbortSignal): Promise<IdentityToken | undefined>;

  /** All projects that are enabled or not, without the domains themselves. */
  listProjects(): Promise<IdentityProject[]>;
  getProject(id: string): Promise<IdentityProject | undefined>;
  /** @throws IdentityConflictError when the domain has a project of that name */
  createProject(project: NewProject): Promise<IdentityProject>;
  updateProject(id: string, changes: Partial<NewProject>): Promise<IdentityProject>;
  /** Its tokens, assignments and application credentials end with it. Absent is fine. */
  deleteProject(id: string): Promise<void>;

  listAssignments(projectId: string): Promise<IdentityAssignment[]>;
  /** Absent or present already is fine. @throws IdentityNotFoundError for an unknown name */
  grant(assignment: IdentityAssignment): Promise<void>;
  revoke(assignment: IdentityAssignment): Promise<void>;

  /** Calls back soon after projects may have changed (names, disabled, deleted). Ends with the signal. */
  onProjectsChanged(changed: () => void, signal: AbortSignal): void;

  close(): Promise<void>;
}

/** Of the domain that every identity service begins with. */
export const DEFAULT_DOMAIN_ID = 'default';

/** How long a revoked token, a disabled user or a lost role may still be honoured. */
export const IDENTITY_CACHE_MS = 5_000;

export interface NamedId {
  id: string;
  name: string;
}

export interface IdentityToken {
  user: NamedId & { domain: NamedId };
  /** `password`, `token`, `application_credential`, in Keystone's words. */
  methods: string[];
  issuedAtMs: number;
  expiresAtMs: number;
  scope:
    | { kind: 'project'; project: IdentityProject }
    | { kind: 'domain'; domain: NamedId }
    | { kind: 'system' }
    | { kind: 'unscoped' };
  /** Names of the effective roles, implied and inherited ones included. */
  roles: string[];
  /** Names of the user's groups, each with its domain. Empty where they cannot be asked for. */
  groups: { name: string; domain: string }[];
  /** Of an application credential that is restricted to some requests. */
  accessRules?: { service: string; method: string; path: string }[];
  applicationCredentialId?: string;
}

export interface NewProject {
  name: string;
  /** Id of the domain. */
  domainId: string;
  /** Id of the project above; absent for a project right below its domain. */
  parentId?: string;
  description?: string;
  enabled: boolean;
}

export interface IdentityProject extends NamedId {
  domain: NamedId;
  parentId?: string;
  description: string;
  enabled: boolean;
}

export interface IdentityAssignment {
  projectId: string;
  kind: 'User' | 'Group';
  /** Of the user or group. */
  name: string;
  domain: string;
  /** Name of the role. */
  role: string;
}

/** The identity service cannot be asked now; `cause` says why. */
export class IdentityUnavailableError extends Error {
  override name = 'IdentityUnavailableError';
}

export class IdentityConflictError extends Error {
  override name = 'IdentityConflictError';
}

export class IdentityNotFoundError extends Error {
  override name = 'IdentityNotFoundError';
}

/** The service refuses its own user: credentials are wrong or lack a role. */
export class IdentityForbiddenError extends Error {
  override name = 'IdentityForbiddenError';
}
