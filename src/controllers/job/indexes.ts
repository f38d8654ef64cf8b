import type { Pod } from '../../api/types.generated.ts';

/** Completion indexes of a Job, and the form in which they stand in its status. */
export const INDEX_ANNOTATION = 'batch.kubernetes.io/job-completion-index';

/** Above any Job that the API admits; a status that somebody forged costs no more. */
const INDEX_COUNT_MAX = 100_000;

/** The index of a pod of an indexed Job. */
export function indexOf({ metadata }: Pod): number | undefined {
  const text = metadata.annotations?.[INDEX_ANNOTATION] ?? '';
  return /^(0|[1-9]\d{0,8})$/.test(text) ? Number(text) : undefined;
}

/** Reads `1,3-5`. What is out of order, or not below `count`, is left out. */
export function parseIndexes(text: string | undefined, count: number): Set<number> {
  const indexes = new Set<number>();
  const end = Math.min(count, INDEX_COUNT_MAX);
  for (const part of (text ?? '').split(',')) {
    const match = /^(\d+)(?:-(\d+))?$/.exec(part);
    if (!match) continue;
    const first = Number(match[1]);
    const last = Math.min(Number(match[2] ?? first), end - 1);
    for (let index = first; index <= last; index++) indexes.add(index);
  }
  return indexes;
}

/** Writes `1,3-5`; two neighbours are `3,4`. */
export function formatIndexes(indexes: Iterable<number>): string {
  const runs: { first: number; last: number }[] = [];
  for (const index of [...indexes].sort((a, b) => a - b)) {
    const run = runs.at(-1);
    if (run && run.last === index - 1) run.last = index;
    else runs.push({ first: index, last: index });
  }
  const text = runs.map(({ first, last }) => {
    if (first === last) return `${first}`;
    return last === first + 1 ? `${first},${last}` : `${first}-${last}`;
  });
  return text.join(',');
}

/** The lowest indexes that are not taken. */
export function freeIndexes(count: number, taken: Set<number>, wanted: number): number[] {
  const free: number[] = [];
  for (let index = 0; index < count && free.length < wanted; index++) {
    if (!taken.has(index)) free.push(index);
  }
  return free;
}
