import type { UserInfo } from '../../api/auth.ts';

/**
 * Places that requests take while they run: a number in all, and of these no more than a share for
 * one user, so that no tenant can hold all of them.
 */
export interface Shares {
  hasRoom(user: UserInfo): boolean;
  /** @returns what gives the place back, once; undefined where there is none for this user */
  take(user: UserInfo): (() => void) | undefined;
}

export function createShares(totalMax: number, perUserMax: number): Shares {
  const byUser = new Map<string, number>();
  let total = 0;
  const countOf = (key: string) => byUser.get(key) ?? 0;
  const hasRoom = (user: UserInfo) => total < totalMax && countOf(keyOf(user)) < perUserMax;
  return {
    hasRoom,
    take(user) {
      if (!hasRoom(user)) return undefined;
      const key = keyOf(user);
      total += 1;
      byUser.set(key, countOf(key) + 1);
      let isTaken = true;
      return () => {
        if (!isTaken) return;
        isTaken = false;
        total -= 1;
        const left = countOf(key) - 1;
        if (left > 0) byUser.set(key, left);
        else byUser.delete(key);
      };
    },
  };
}

const SERVICE_ACCOUNT = /^(system:serviceaccount:[^:]+):/;

/** Service accounts of one namespace count as one: who may make one may make a thousand. */
function keyOf({ name }: UserInfo): string {
  return SERVICE_ACCOUNT.exec(name)?.[1] ?? name;
}
