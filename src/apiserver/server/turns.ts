import type { UserInfo } from '../../api/auth.ts';
import { StatusError } from '../../api/status.ts';
import { shareKey } from './shares.ts';

/**
 * The event loop, shared out among tenants: what takes a while is begun, or gone on with, when it is
 * its tenant's turn. Tenants come one after the other, and in a tenant its users, so that one who
 * asks for little waits for one piece of work of each of the others, however much they ask for.
 */
export interface Turns {
  /**
   * Resolves when a piece of work of this user may run: a request up to its first wait, a part of a
   * long answer. At once where nobody else is at work. Users without a tenant do not wait.
   *
   * @throws StatusError 429 where `WAITING_MAX` of the tenant wait already
   */
  take(user: UserInfo): Promise<void> | undefined;
  /** As `take`, but lets others go first also where nobody waits for a turn. */
  yield(user: UserInfo): Promise<void>;
}

type Waiting = Map<string, (() => void)[]>;

/** Pieces of work of one tenant that wait for their turn. */
const WAITING_MAX = 1_000;

export function createTurns(soon: (run: () => void) => void = setImmediate): Turns {
  /** tenant → user → who waits. The order of the keys is that of the turns. */
  const tenants = new Map<string, Waiting>();
  let isBusy = false;

  const next = (): void => {
    const begin = takeFirst(tenants);
    isBusy = begin !== undefined;
    if (!begin) return;
    soon(next);
    begin();
  };
  const enter = (tenant: string, user: UserInfo): Promise<void> =>
    new Promise((resolve) => {
      const waiting: Waiting = tenants.get(tenant) ?? new Map();
      tenants.set(tenant, waiting);
      const key = shareKey(user);
      const queue = waiting.get(key);
      if (queue) queue.push(resolve);
      else waiting.set(key, [resolve]);
      if (isBusy) return;
      isBusy = true;
      soon(next);
    });

  return {
    take(user) {
      const { tenant } = user;
      if (tenant === undefined) return undefined;
      if (isBusy && countOf(tenants.get(tenant)) >= WAITING_MAX) throw tooMany();
      if (isBusy) return enter(tenant, user);
      isBusy = true;
      soon(next);
      return undefined;
    },
    yield(user) {
      if (user.tenant !== undefined) return enter(user.tenant, user);
      return new Promise((resolve) => {
        soon(resolve);
      });
    },
  };
}

function countOf(waiting: Waiting | undefined): number {
  let count = 0;
  for (const queue of waiting?.values() ?? []) count += queue.length;
  return count;
}

export function tooMany(): StatusError {
  const message = 'Too many requests, please try again later.';
  return new StatusError('TooManyRequests', message, { details: { retryAfterSeconds: 1 } });
}

/** The first of the first user of the first tenant; both go to the end, or go. */
function takeFirst(tenants: Map<string, Waiting>): (() => void) | undefined {
  const [tenant, users] = first(tenants) ?? [];
  const [user, queue] = (users && first(users)) ?? [];
  if (tenant === undefined || user === undefined || !users || !queue) return undefined;
  const begin = queue.shift();
  users.delete(user);
  if (queue.length > 0) users.set(user, queue);
  tenants.delete(tenant);
  if (users.size > 0) tenants.set(tenant, users);
  return begin;
}

function first<V>(map: Map<string, V>): [string, V] | undefined {
  return map.entries().next().value;
}
