import type { Pod } from '../../api/types.generated.ts';
import { table } from '../table.ts';

/** The stages of a pod's start, in the order in which they are complete. */
export const STAGES = [
  'admitted',
  'scheduled',
  'image',
  'network',
  'vm',
  'guest',
  'started',
  'first-byte',
] as const;

const PREFIX = 'timeline.hypernetes.io/';

/** Milliseconds after `admitted` at which each stage was complete; undefined where it is not told. */
export type Timeline = Partial<Record<(typeof STAGES)[number], number>>;

export function timelineOf(pod: Pod): Timeline {
  const stamp = (stage: string) => Date.parse(pod.metadata.annotations?.[PREFIX + stage] ?? '');
  const startMs = stamp('admitted');
  const entries = STAGES.map((stage) => [stage, Math.round(stamp(stage) - startMs)] as const);
  return Object.fromEntries(entries.filter(([, ms]) => Number.isFinite(ms)));
}

/** How a pod came to its VM: `warm`, `template` or `cold`; empty where it is not told. */
export function originOf(pod: Pod): string {
  return pod.metadata.annotations?.[`${PREFIX}origin`] ?? '';
}

/** A line for each pod, a column for each stage: milliseconds since the pod was admitted. */
export function renderTimelines(
  pods: { name: string; origin: string; timeline: Timeline }[],
): string {
  const rows = pods.map(({ name, origin, timeline }) => [
    name,
    origin,
    ...STAGES.map((stage) => (timeline[stage] === undefined ? '-' : `${timeline[stage]} ms`)),
  ]);
  return table(['POD', 'VM FROM', ...STAGES.map((stage) => stage.toUpperCase())], rows);
}
