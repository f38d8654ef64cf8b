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

/**
 * Leaves out the counts that are 0: Kubernetes does not show them, so `jsonpath` finds nothing
 * there and not a 0. Those that it does show are listed in `shown`.
 */
export function withoutZeros<S extends object>(status: S, shown: (keyof S)[] = []): S {
  const entries = Object.entries(status).filter(
    ([name, value]) => value !== 0 || shown.includes(name as keyof S),
  );
  return Object.fromEntries(entries) as S;
}
