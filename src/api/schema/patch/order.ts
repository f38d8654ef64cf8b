/**
 * The order of a merged list: elements named in the patch in the patch's order, the others in the
 * order they had, each of these before the first patched element that it preceded.
 */
export function normalizeOrder(
  merged: readonly unknown[],
  patchOrder: readonly unknown[],
  serverOrder: readonly unknown[],
  mergeKey: string | undefined,
): unknown[] {
  const identity = (item: unknown): unknown =>
    mergeKey === undefined ? item : (item as Record<string, unknown> | null)?.[mergeKey];
  const patchIndex = indexBy(patchOrder, identity);
  const serverIndex = indexBy(serverOrder, identity);
  const patched: unknown[] = [];
  const others: unknown[] = [];
  for (const item of merged) (patchIndex.has(identity(item)) ? patched : others).push(item);
  const place = (index: Map<unknown, number>) => (item: unknown) => index.get(identity(item)) ?? -1;
  const inPatch = place(patchIndex);
  const inServer = place(serverIndex);
  patched.sort((a, b) => inPatch(a) - inPatch(b));
  others.sort((a, b) => inServer(a) - inServer(b));
  const out: unknown[] = [];
  let next = 0;
  for (const item of patched) {
    const at = inServer(item);
    while (next < others.length && at >= 0) {
      const otherAt = inServer(others[next]);
      if (otherAt < 0 || otherAt >= at) break;
      out.push(others[next]);
      next += 1;
    }
    out.push(item);
  }
  return [...out, ...others.slice(next)];
}

function indexBy(items: readonly unknown[], identity: (item: unknown) => unknown) {
  const index = new Map<unknown, number>();
  items.forEach((item, at) => {
    if (!index.has(identity(item))) index.set(identity(item), at);
  });
  return index;
}
