import type { Clock } from '../../base/clock.ts';
import type { Random } from '../../base/random.ts';
import { forbidden, unauthorized } from './errors.ts';
import type { Lockout } from './lockout.ts';
import type { PasswordHasher } from './passwords.ts';
import type { ApplicationCredential, User } from './records.ts';
import { epochsOf, openSession, resumeSession } from './sessions.ts';
import type { ScopeRef, Session } from './sessions.ts';
import type { IdentitySettings } from './settings.ts';
import type { IdentityState } from './state.ts';
import { AUDIT_ID_BYTES, decodeToken, encodeToken, METHODS } from './token-codec.ts';
import type { Claims, Method } from './token-codec.ts';
import type { TokenKeys } from './token-keys.ts';

export type DomainRef = { id: string } | { name: string };
export type UserRef = { id: string } | { name: string; domain: DomainRef };

export type Identity =
  | { method: 'password'; user: UserRef; password: string }
  | { method: 'token'; token: string }
  | {
      method: 'application_credential';
      credential: { id: string } | { name: string; user: UserRef };
      secret: string;
    };

export type WantedScope =
  | { kind: 'project'; project: { id: string } | { name: string; domain: DomainRef } }
  | { kind: 'domain'; domain: DomainRef }
  | { kind: 'system' }
  | { kind: 'unscoped' };

export interface AuthenticationRequest {
  identity: Identity;
  /** Absent: the user's default project, or nothing. */
  scope?: WantedScope;
  /** The caller's address, if it is known; one address cannot keep the others from logging in. */
  source?: string;
}

export interface Authenticated {
  token: string;
  claims: Claims;
  session: Session;
}

export interface Authentication {
  /** @throws KeystoneError 401, with one text for every reason; 503 when too many log in */
  authenticate(request: AuthenticationRequest): Promise<Authenticated>;
  /** Undefined for a token that is not ours, expired, revoked, or stands for nobody any more. */
  validate(token: string): Authenticated | undefined;
  /**
   * The user, if it is the password now. Takes the same time for a user that does not exist or is
   * locked out; a wrong one counts against the user.
   */
  checkPassword(ref: UserRef, password: string, source?: string): Promise<User | undefined>;
}

export interface AuthenticationOptions {
  state: IdentityState;
  clock: Clock;
  random: Random;
  settings: IdentitySettings;
  hasher: PasswordHasher;
  keys: TokenKeys;
  lockout: Lockout;
}

/** Who a request turned out to come from, before it is known where it wants to work. */
interface Proof {
  userId: string;
  methods: Method[];
  expiresAtMs: number;
  chainId?: string;
  credential?: ApplicationCredential;
}

export function createAuthentication(options: AuthenticationOptions): Authentication {
  const { state, clock, random, settings, hasher, keys, lockout } = options;
  const { tables } = state;

  const findDomainId = (ref: DomainRef) =>
    'id' in ref ? ref.id : tables.domains.all().find(({ name }) => name === ref.name)?.id;

  const findUser = (ref: UserRef): User | undefined => {
    if ('id' in ref) return tables.users.get(ref.id);
    const domainId = findDomainId(ref.domain);
    return domainId === undefined ? undefined : state.usersByName(domainId, ref.name)[0];
  };

  const checkPassword = async (ref: UserRef, password: string, source?: string) => {
    const user = findUser(ref);
    const hash = user?.passwords[0]?.hash;
    const exempt = user?.options.ignore_lockout_failure_attempts ?? false;
    const isLocked = () => user !== undefined && !exempt && lockout.locked(user.id);
    const correct = await hasher.verify(password, {
      subjects: subjectsOf(ref, source),
      hashOf: () => (isLocked() ? undefined : hash),
      settle: async (right) => {
        if (right && user) await lockout.succeeded(user.id);
        else await lockout.failed(user && !isLocked() ? user.id : undefined);
      },
    });
    // It may have been changed while it was checked.
    const now = user && tables.users.get(user.id)?.passwords[0]?.hash;
    return correct && now === hash ? user : undefined;
  };

  const byPassword = async (
    ref: UserRef,
    password: string,
    source: string | undefined,
  ): Promise<Proof> => {
    const user = await checkPassword(ref, password, source);
    if (!user) throw unauthorized();
    const { expiresAtMs: endMs } = user.passwords[0] ?? {};
    const expiresAtMs = user.options.ignore_password_expiry ? undefined : endMs;
    if (expiresAtMs !== undefined && expiresAtMs <= clock.nowMs()) {
      throw unauthorized(`The password is expired and needs to be changed for user: ${user.id}.`);
    }
    return {
      userId: user.id,
      methods: ['password'],
      expiresAtMs: clock.nowMs() + settings.tokenLifetimeMs,
    };
  };

  const validate = (token: string): Authenticated | undefined => {
    const claims = decodeToken(token, keys.secretOf);
    const session = claims && resumeSession(state, clock, claims);
    return claims && session && { token, claims, session };
  };

  const byToken = (token: string): Proof => {
    const found = validate(token);
    if (!found) throw unauthorized();
    const { claims } = found;
    if (claims.credentialId !== undefined) {
      throw forbidden('A token of an application credential cannot be exchanged for another.');
    }
    const methods = METHODS.filter((one) => one === 'token' || claims.methods.includes(one));
    const { userId, expiresAtMs, chainId } = claims;
    return { userId, methods, expiresAtMs, chainId };
  };

  const byCredential = async (
    identity: Identity & { method: 'application_credential' },
    source: string | undefined,
  ): Promise<Proof> => {
    const credential = findCredential(identity.credential);
    const correct = await hasher.verify(identity.secret, {
      subjects: subjectsOf(identity.credential, source),
      hashOf: () => (credential && !lockout.locked(credential.id) ? credential.hash : undefined),
      settle: async (right) => {
        if (right && credential) await lockout.succeeded(credential.id);
        else await lockout.failed(credential?.id);
      },
    });
    if (!correct || !credential) throw unauthorized();
    if (!tables.applicationcredentials.get(credential.id)) throw unauthorized();
    const lifeEndMs = clock.nowMs() + settings.tokenLifetimeMs;
    return {
      userId: credential.userId,
      methods: ['application_credential'],
      expiresAtMs: Math.min(lifeEndMs, credential.expiresAtMs ?? Infinity),
      credential,
    };
  };

  const findCredential = (ref: { id: string } | { name: string; user: UserRef }) => {
    if ('id' in ref) return tables.applicationcredentials.get(ref.id);
    const user = findUser(ref.user);
    return user && state.credentialsOfUser(user.id).find(({ name }) => name === ref.name);
  };

  const prove = async (identity: Identity, source: string | undefined): Promise<Proof> => {
    if (identity.method === 'password') {
      return byPassword(identity.user, identity.password, source);
    }
    if (identity.method === 'application_credential') return byCredential(identity, source);
    return byToken(identity.token);
  };

  const scopeRef = (wanted: WantedScope): ScopeRef | undefined => {
    if (wanted.kind === 'domain') {
      const id = findDomainId(wanted.domain);
      return id === undefined ? undefined : { kind: 'domain', id };
    }
    if (wanted.kind !== 'project') return wanted;
    if ('id' in wanted.project) return { kind: 'project', id: wanted.project.id };
    const domainId = findDomainId(wanted.project.domain);
    if (domainId === undefined) return undefined;
    const project = state.projectsByName(domainId, wanted.project.name)[0];
    return project && { kind: 'project', id: project.id };
  };

  /** Without a wish: where the credential belongs, the user's default project, or nowhere. */
  const sessionFor = (proof: Proof, wanted: WantedScope | undefined): Session | undefined => {
    const open = (ref: ScopeRef) => openSession(state, clock, proof.userId, ref, proof.credential);
    if (proof.credential) {
      if (wanted) throw unauthorized('Application credentials cannot request a scope.');
      return open({ kind: 'project', id: proof.credential.projectId });
    }
    if (wanted) {
      const ref = scopeRef(wanted);
      return ref && open(ref);
    }
    const id = tables.users.get(proof.userId)?.defaultProjectId;
    return (id === undefined ? undefined : open({ kind: 'project', id })) ?? open(UNSCOPED);
  };

  const issue = (proof: Proof, session: Session): Authenticated => {
    const auditId = Buffer.from(random.bytes(AUDIT_ID_BYTES)).toString('base64url');
    const { userEpoch, scopeEpoch } = epochsOf(state, session);
    const { scope } = session;
    const claims: Claims = {
      methods: proof.methods,
      userId: proof.userId,
      userEpoch,
      scopeKind: scope.kind,
      issuedAtMs: clock.nowMs(),
      expiresAtMs: proof.expiresAtMs,
      auditId,
      chainId: proof.chainId ?? auditId,
    };
    if (scope.kind === 'project') Object.assign(claims, { scopeId: scope.project.id, scopeEpoch });
    if (scope.kind === 'domain') Object.assign(claims, { scopeId: scope.domain.id, scopeEpoch });
    if (proof.credential) claims.credentialId = proof.credential.id;
    return { token: encodeToken(claims, keys.primary()), claims, session };
  };

  return {
    async authenticate({ identity, scope, source }) {
      const proof = await prove(identity, source);
      const session = sessionFor(proof, scope);
      if (!session) throw unauthorized();
      return issue(proof, session);
    },
    validate,
    checkPassword,
  };
}

/** By what was asked for, not by what there is: a full queue tells nobody who exists. */
function subjectsOf(ref: object, source: string | undefined): string[] {
  const account = `account ${JSON.stringify(ref)}`;
  return source === undefined ? [account] : [account, `address ${source}`];
}

const UNSCOPED: ScopeRef = { kind: 'unscoped' };
