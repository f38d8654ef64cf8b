import type { KubeObject } from '../../api/object.ts';
import { rfc3339 } from '../../base/clock.ts';

/*
 * What the identity service keeps, one internal resource each. The Kubernetes API serves none of
 * them. A record is immutable; its id is the object's name.
 */

const IDENTITY_GROUP = 'identity.hypernetes.io';

export interface Domain {
  id: string;
  name: string;
  description: string;
  enabled: boolean;
  /** Grows when its tokens have to end; see `sessions.ts`. */
  epoch: number;
  /** Of the default domain, once all that a new cluster needs has been made. */
  bootstrapped?: boolean;
}

export interface Project {
  id: string;
  name: string;
  domainId: string;
  /** Absent right below the domain. Never changed, so that the tree can have no cycle. */
  parentId?: string;
  description: string;
  enabled: boolean;
  tags: string[];
  epoch: number;
}

/** The options of Keystone's users that are supported; others are refused by name. */
export interface UserOptions {
  ignore_lockout_failure_attempts?: boolean;
  ignore_password_expiry?: boolean;
  ignore_change_password_upon_first_use?: boolean;
  lock_password?: boolean;
}

export interface StoredPassword {
  /** PHC string. */
  hash: string;
  createdAtMs: number;
  /** Absent when it does not expire. */
  expiresAtMs?: number;
}

export interface User {
  id: string;
  name: string;
  domainId: string;
  description?: string;
  email?: string;
  defaultProjectId?: string;
  enabled: boolean;
  options: UserOptions;
  /** Newest first; those after the first only count against reuse. Empty: no password login. */
  passwords: StoredPassword[];
  epoch: number;
}

export interface Group {
  id: string;
  name: string;
  domainId: string;
  description: string;
}

export interface Membership {
  id: string;
  userId: string;
  groupId: string;
}

export interface Role {
  id: string;
  name: string;
  description: string;
}

export interface Implication {
  id: string;
  priorRoleId: string;
  impliedRoleId: string;
}

export type ActorKind = 'user' | 'group';
export type TargetKind = 'project' | 'domain' | 'system';

/** Of the one target of kind `system`. */
export const SYSTEM_ID = 'all';

export interface Assignment {
  id: string;
  roleId: string;
  actorKind: ActorKind;
  actorId: string;
  targetKind: TargetKind;
  targetId: string;
  /** OS-INHERIT: holds in the projects below the target, and not in the target itself. */
  inherited: boolean;
}

export interface AccessRule {
  id: string;
  service: string;
  method: string;
  path: string;
}

export interface ApplicationCredential {
  id: string;
  name: string;
  description?: string;
  userId: string;
  projectId: string;
  roleIds: string[];
  /** PHC string of the secret. */
  hash: string;
  expiresAtMs?: number;
  unrestricted: boolean;
  /** Absent: every request. An empty list allows none. */
  accessRules?: AccessRule[];
}

export interface Region {
  id: string;
  description: string;
  parentRegionId?: string;
}

export interface Service {
  id: string;
  type: string;
  name: string;
  description: string;
  enabled: boolean;
}

export interface Endpoint {
  id: string;
  serviceId: string;
  regionId?: string;
  interface: 'public' | 'internal' | 'admin';
  url: string;
  enabled: boolean;
}

/** A token, or a chain of tokens made from one, that ended before its time. Named by audit id. */
export interface Revocation {
  id: string;
  userId: string;
  /** When the last token that it concerns expires by itself. */
  expiresAtMs: number;
}

export interface TokenKey {
  /** Base64 of the secret. */
  secret: string;
  /** In the token; 1 to 2^32 - 1. */
  number: number;
  state: 'staged' | 'primary' | 'retired';
  createdAtMs: number;
  /** When it ceased to sign. */
  retiredAtMs?: number;
}

export interface TokenKeySet {
  id: string;
  keys: TokenKey[];
}

/** Failed logins of a user (the id) since the last one that succeeded. */
export interface LoginFailures {
  id: string;
  count: number;
  lastAtMs: number;
}

export interface Records {
  domains: Domain;
  projects: Project;
  users: User;
  groups: Group;
  memberships: Membership;
  roles: Role;
  implications: Implication;
  assignments: Assignment;
  applicationcredentials: ApplicationCredential;
  regions: Region;
  services: Service;
  endpoints: Endpoint;
  revocations: Revocation;
  tokenkeys: TokenKeySet;
  loginfailures: LoginFailures;
}

/** The word for one of them, as messages have it. */
export const RECORD_KINDS: Record<keyof Records, string> = {
  domains: 'domain',
  projects: 'project',
  users: 'user',
  groups: 'group',
  memberships: 'membership',
  roles: 'role',
  implications: 'implied role',
  assignments: 'role assignment',
  applicationcredentials: 'application credential',
  regions: 'region',
  services: 'service',
  endpoints: 'endpoint',
  revocations: 'revocation',
  tokenkeys: 'token keys',
  loginfailures: 'failed logins',
};

export const resourceOf = (collection: keyof Records) => `${IDENTITY_GROUP}/${collection}`;

export function toObject(
  collection: keyof Records,
  record: { id: string },
  nowMs: number,
): KubeObject {
  const { id, ...spec } = record;
  return {
    apiVersion: `${IDENTITY_GROUP}/v1`,
    kind: RECORD_KINDS[collection],
    metadata: { name: id, creationTimestamp: rfc3339(nowMs) },
    spec,
  };
}

export function toRecord<T>(object: KubeObject): T {
  return { id: object.metadata.name, ...(object['spec'] as object) } as T;
}
