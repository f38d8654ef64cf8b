import { latest } from './decide.ts';
import type { PodView } from './history.ts';

/**
 * When the stages of a pod's start were complete, as annotations: RFC 3339 in UTC with
 * milliseconds; and how it came to its VM. Only the first start counts; a pod that was restarted
 * keeps what it has.
 */
const PREFIX = 'timeline.hypernetes.io/';

/** @param imagesReadyMs 0 while unknown */
export function timeline(view: PodView, imagesReadyMs: number): Record<string, string> {
  const { pod, sandbox } = view;
  const main = view.containers.filter((each) => each.role === 'main');
  const first = main.flatMap((each) => latest(each) ?? []);
  const timings = sandbox?.timings ?? {};
  const started = latestOf(
    first.map((each) => each.startedMs),
    main.length,
  );
  const stages: Record<string, number | undefined> = {
    network: timings.network,
    vm: timings.vmm,
    guest: timings.guest,
    started,
    'first-byte': earliestOf(first.map((each) => each.firstByteMs)),
    image: started ? imagesReadyMs : undefined,
  };
  const annotations: Record<string, string> = {};
  for (const [stage, atMs] of Object.entries(stages)) {
    const key = `${PREFIX}${stage}`;
    const written = pod.metadata.annotations?.[key];
    if (written !== undefined || !atMs) continue;
    annotations[key] = new Date(Math.round(atMs)).toISOString();
  }
  const origin = `${PREFIX}origin`;
  if (sandbox?.origin && pod.metadata.annotations?.[origin] === undefined) {
    annotations[origin] = sandbox.origin;
  }
  return annotations;
}

/** Complete when the last of all has come. */
function latestOf(times: number[], count: number): number | undefined {
  const known = times.filter((each) => each > 0);
  return known.length === count ? Math.max(...known) : undefined;
}

function earliestOf(times: number[]): number | undefined {
  const known = times.filter((each) => each > 0);
  return known.length > 0 ? Math.min(...known) : undefined;
}
