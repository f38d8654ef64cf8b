/**
 * Resolves with the results when all of the work is done, or rejects when none of it is under way
 * any more: with the first failure of those given first.
 */
export async function allOf<T extends unknown[]>(
  ...work: { [K in keyof T]: Promise<T[K]> }
): Promise<T> {
  const results = await Promise.allSettled(work);
  return results.map((result) => {
    if (result.status === 'rejected') throw result.reason;
    return result.value;
  }) as T;
}
