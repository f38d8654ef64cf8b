/**
 * Resolves when all of the work is done, or rejects when none of it is under way any more: with the
 * first failure of those given first.
 */
export async function allOf(...work: Promise<unknown>[]): Promise<void> {
  const results = await Promise.allSettled(work);
  for (const result of results) if (result.status === 'rejected') throw result.reason;
}
