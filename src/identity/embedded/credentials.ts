import type { Clock } from '../../base/clock.ts';
import type { Random } from '../../base/random.ts';
import { newId } from './directory.ts';
import type { Serial } from './directory.ts';
import { badRequest, conflict, forbidden } from './errors.ts';
import type { PasswordHasher } from './passwords.ts';
import type { AccessRule, ApplicationCredential } from './records.ts';
import type { Session } from './sessions.ts';
import { LIMITS } from './settings.ts';
import type { IdentityState } from './state.ts';

/** Of a secret that is made here; 256 bits. */
const SECRET_BYTES = 32;

export interface NewCredential {
  name: string;
  description?: string;
  /** Made where it is absent. */
  secret?: string;
  /** Ids or names. Absent: all that the session has. */
  roles?: ({ id: string } | { name: string })[];
  expiresAtMs?: number;
  unrestricted: boolean;
  accessRules?: ({ id: string } | Omit<AccessRule, 'id'>)[];
}

export interface Credentials {
  /**
   * For the session's own user and project, with at most the session's roles. The secret is told
   * here and never again.
   */
  create(
    session: Session,
    wanted: NewCredential,
  ): Promise<{ credential: ApplicationCredential; secret: string }>;
  delete(id: string): Promise<boolean>;
  /** The rules of all of a user's credentials, each once. */
  accessRulesOf(userId: string): AccessRule[];
}

export function createCredentials(options: {
  state: IdentityState;
  clock: Clock;
  random: Random;
  serial: Serial;
  hasher: PasswordHasher;
}): Credentials {
  const { state, clock, random, serial, hasher } = options;

  const accessRulesOf = (userId: string) => {
    const rules = new Map<string, AccessRule>();
    for (const { accessRules = [] } of state.credentialsOfUser(userId)) {
      for (const rule of accessRules) rules.set(rule.id, rule);
    }
    return [...rules.values()];
  };

  /** A rule that the user has already keeps its id. */
  const ruleFrom = (userId: string, wanted: { id: string } | Omit<AccessRule, 'id'>) => {
    const known = accessRulesOf(userId).find((rule) =>
      'id' in wanted
        ? rule.id === wanted.id
        : rule.service === wanted.service &&
          rule.method === wanted.method &&
          rule.path === wanted.path,
    );
    if (known) return known;
    if ('id' in wanted) throw badRequest(`Could not find access rule: ${wanted.id}.`);
    return { id: newId(random), ...wanted };
  };

  const record = (session: Session, wanted: NewCredential, hash: string) => {
    const { user, scope } = session;
    if (scope.kind !== 'project') {
      throw badRequest('An application credential needs a token that is scoped to a project.');
    }
    const credential: ApplicationCredential = {
      id: newId(random),
      name: wanted.name,
      userId: user.id,
      projectId: scope.project.id,
      roleIds: rolesFrom(session, wanted.roles),
      hash,
      unrestricted: wanted.unrestricted,
    };
    if (wanted.description !== undefined) credential.description = wanted.description;
    if (wanted.expiresAtMs !== undefined) credential.expiresAtMs = wanted.expiresAtMs;
    if (wanted.accessRules) {
      credential.accessRules = wanted.accessRules.map((rule) => ruleFrom(user.id, rule));
    }
    return credential;
  };

  return {
    async create(session, wanted) {
      if (wanted.expiresAtMs !== undefined && wanted.expiresAtMs <= clock.nowMs()) {
        throw badRequest("Invalid input for field 'expires_at': it lies in the past.");
      }
      const made = Buffer.from(random.bytes(SECRET_BYTES)).toString('base64url');
      const secret = wanted.secret ?? made;
      const hash = await hasher.hash(secret, [session.user.id]);
      const credential = await serial(async () => {
        const others = state.credentialsOfUser(session.user.id);
        if (others.some((other) => other.name === wanted.name)) {
          throw conflict(
            'application_credential',
            `Duplicate entry found with name ${wanted.name}`,
          );
        }
        if (others.length >= LIMITS.credentialsPerUser) {
          const limit = LIMITS.credentialsPerUser;
          throw forbidden(`Unable to create additional application credentials, maximum of ${limit} \
already exceeded for user ${session.user.id}.`);
        }
        const next = record(session, wanted, hash);
        await state.tables.applicationcredentials.create(next);
        return next;
      });
      return { credential, secret };
    },
    delete: (id) => state.tables.applicationcredentials.remove(id),
    accessRulesOf,
  };
}

function rolesFrom(session: Session, wanted: NewCredential['roles']): string[] {
  if (!wanted) return session.roles.map(({ id }) => id);
  return wanted.map((ref) => {
    const role = session.roles.find((own) =>
      'id' in ref ? own.id === ref.id : own.name === ref.name,
    );
    const name = 'id' in ref ? ref.id : ref.name;
    if (!role) throw badRequest(`Invalid role ${name}: the user does not have it on this project.`);
    return role.id;
  });
}
