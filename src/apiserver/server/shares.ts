import type { UserInfo } from '../../api/auth.ts';

/**
 * Places that requests take while they run: a number in all, of these no more than a share for one
 * tenant, and of its share again no more than a share for one user.
 */
export interface Shares {
  hasRoom(user: UserInfo): boolean;
  /** @returns what gives the place back, once; undefined where there is none for this user */
  take(user: UserInfo): (() => void) | undefined;
}

/** @param perTenantMax also of a user without a tenant; one with a tenant gets half of it */
export function createShares(totalMax: number, perTenantMax: number): Shares {
  const taken = new Map<string, number>();
  let total = 0;
  const countOf = (key: string) => taken.get(key) ?? 0;
  const boundsOf = (user: UserInfo) => boundsFor(user, perTenantMax);
  const hasRoom = (user: UserInfo) =>
    total < totalMax && boundsOf(user).every(({ key, max }) => countOf(key) < max);
  return {
    hasRoom,
    take(user) {
      if (!hasRoom(user)) return undefined;
      const keys = boundsOf(user).map(({ key }) => key);
      total += 1;
      for (const key of keys) taken.set(key, countOf(key) + 1);
      let isTaken = true;
      return () => {
        if (!isTaken) return;
        isTaken = false;
        total -= 1;
        for (const key of keys) {
          const left = countOf(key) - 1;
          if (left > 0) taken.set(key, left);
          else taken.delete(key);
        }
      };
    },
  };
}

function boundsFor(user: UserInfo, perTenantMax: number): { key: string; max: number }[] {
  const key = `user ${shareKey(user)}`;
  if (user.tenant === undefined) return [{ key, max: perTenantMax }];
  const own = { key: `${key} of ${user.tenant}`, max: Math.ceil(perTenantMax / 2) };
  return [{ key: `tenant ${user.tenant}`, max: perTenantMax }, own];
}

const SERVICE_ACCOUNT = /^(system:serviceaccount:[^:]+):/;

/** Service accounts of one namespace count as one: who may make one may make a thousand. */
export function shareKey({ name }: UserInfo): string {
  return SERVICE_ACCOUNT.exec(name)?.[1] ?? name;
}
