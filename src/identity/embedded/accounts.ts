import { createHash } from 'node:crypto';
import type { Clock } from '../../base/clock.ts';
import type { Random } from '../../base/random.ts';
import type { Authentication } from './authenticate.ts';
import { newId, withEpoch } from './directory.ts';
import type { Directory, Serial } from './directory.ts';
import { badRequest, forbidden, unauthorized } from './errors.ts';
import type { PasswordHasher } from './passwords.ts';
import type { StoredPassword, User } from './records.ts';
import type { PasswordPolicy } from './settings.ts';
import type { IdentityState } from './state.ts';

export type NewUser = Omit<User, 'id' | 'passwords' | 'epoch'> & { password?: string };

/** Users with their passwords, and who is in which group. */
export interface Accounts {
  createUser(user: NewUser): Promise<User>;
  /** A new password ends the user's tokens, as does disabling it. */
  updateUser(id: string, changes: Partial<NewUser>): Promise<User>;
  /** By the user itself. @throws KeystoneError 401 when the present one is wrong */
  changePassword(id: string, original: string, password: string, source?: string): Promise<void>;
  addMember(groupId: string, userId: string): Promise<void>;
  /** Whether it was one. */
  removeMember(groupId: string, userId: string): Promise<boolean>;
  isMember(groupId: string, userId: string): boolean;
}

export interface AccountsOptions {
  state: IdentityState;
  clock: Clock;
  random: Random;
  serial: Serial;
  directory: Directory;
  hasher: PasswordHasher;
  policy: PasswordPolicy;
  authentication: Authentication;
}

/** An id that says what it is of, so that the same thing is never stored twice. */
export function compositeId(...parts: string[]): string {
  return createHash('sha256').update(JSON.stringify(parts)).digest('hex').slice(0, 32);
}

export function createAccounts(options: AccountsOptions): Accounts {
  const { state, clock, random, serial, directory, hasher, policy, authentication } = options;
  const { tables } = state;

  const store = async (password: string, userId: string): Promise<StoredPassword> => {
    checkPolicy(policy, password);
    const hash = await hasher.hash(password, [userId]);
    const createdAtMs = clock.nowMs();
    if (policy.expiresAfterMs === undefined) return { hash, createdAtMs };
    return { hash, createdAtMs, expiresAtMs: createdAtMs + policy.expiresAfterMs };
  };

  const checkHistory = async (user: User, password: string) => {
    for (const { hash } of user.passwords.slice(0, policy.historyCount)) {
      const settle = () => Promise.resolve();
      if (await hasher.verify(password, { subjects: [user.id], hashOf: () => hash, settle })) {
        const count = policy.historyCount;
        throw badRequest(`The new password cannot be identical to a previous password. The total \
number which includes the new password must be unique is ${count}.`);
      }
    }
  };

  const replacePassword = (user: User, next: StoredPassword): User => ({
    ...user,
    passwords: [next, ...user.passwords.slice(0, Math.max(policy.historyCount - 1, 0))],
    epoch: user.epoch + 1,
  });

  return {
    async createUser({ password, ...user }) {
      const id = newId(random);
      const passwords = password === undefined ? [] : [await store(password, id)];
      const record = { id, ...user, passwords, epoch: 0 };
      return serial(() => directory.createNamed('users', record, tables.users.create));
    },
    async updateUser(id, { password, ...changes }) {
      tables.users.require(id);
      const next = password === undefined ? undefined : await store(password, id);
      const updated = await serial(async () => {
        const before = tables.users.require(id);
        directory.checkName('users', { ...before, ...changes });
        return tables.users.update(id, (user) => {
          const after = withEpoch(user, { ...user, ...changes });
          return next ? replacePassword(after, next) : after;
        });
      });
      if (next) await tables.loginfailures.remove(id);
      return updated;
    },
    async changePassword(id, original, password, source) {
      const user = await authentication.checkPassword({ id }, original, source);
      if (!user) throw unauthorized();
      if (user.options.lock_password) {
        throw forbidden('The password of this user is locked and cannot be changed by itself.');
      }
      await checkHistory(user, password);
      const next = await store(password, id);
      const was = user.passwords[0]?.hash;
      await tables.users.update(id, (current) => {
        if (current.passwords[0]?.hash !== was) throw unauthorized();
        return replacePassword(current, next);
      });
    },
    addMember: (groupId, userId) =>
      serial(async () => {
        tables.groups.require(groupId);
        tables.users.require(userId);
        await tables.memberships.create({ id: compositeId(groupId, userId), groupId, userId });
      }),
    removeMember: (groupId, userId) => tables.memberships.remove(compositeId(groupId, userId)),
    isMember: (groupId, userId) =>
      tables.memberships.get(compositeId(groupId, userId)) !== undefined,
  };
}

function checkPolicy(policy: PasswordPolicy, password: string): void {
  const length = [...password].length;
  const refusal = 'The password does not match the requirements:';
  if (length < policy.lengthMin) {
    const limit = `it has ${length} characters, and needs at least ${policy.lengthMin}`;
    throw badRequest(`${refusal} ${limit}.`);
  }
  if (policy.pattern && !policy.pattern.regex.test(password)) {
    throw badRequest(`${refusal} ${policy.pattern.description}.`);
  }
}
