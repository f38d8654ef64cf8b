/**
 * A number of pods from a field that takes a number or a percentage. What is neither counts as 0.
 *
 * @param round how a share that is not whole becomes so
 */
export function resolveLimit(
  value: number | string,
  total: number,
  round: (share: number) => number,
): number {
  if (typeof value === 'number') return value;
  const percent = /^(\d+)%$/.exec(value)?.[1];
  return percent === undefined ? 0 : round((Number(percent) * total) / 100);
}
