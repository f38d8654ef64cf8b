import { isDeepStrictEqual } from 'node:util';

/** Servers may leave zeros out: for comparing they are the same as nothing. */
export function isSameStatus(a: object | undefined, b: object): boolean {
  const normal = (status: object) =>
    Object.fromEntries(
      Object.entries(status).filter(
        ([, value]) =>
          value !== 0 && value !== undefined && !(Array.isArray(value) && !value.length),
      ),
    );
  return a !== undefined && isDeepStrictEqual(normal(a), normal(b));
}
