import { abortable } from '../../base/abort.ts';
import type { Clock } from '../../base/clock.ts';
import { describeError } from '../../base/log.ts';
import { CONFORMANCE_CASES } from './conformance-cases.ts';
import type { HypervisorUnderTest } from './conformance-cases.ts';
import { withDeadline } from './deadline.ts';

export interface ConformanceResult {
  name: string;
  outcome: 'passed' | 'failed' | 'not declared';
  /** What was not as promised, in one line; empty for what passed. */
  message: string;
}

/**
 * Runs all cases, one after the other. One that fails does not keep the others from being run, but
 * what it leaves behind may make them fail too.
 *
 * @param caseLimitMs after which a case has failed, though a guest may never answer
 * @throws what `signal` aborts with
 */
export async function runConformance(
  under: HypervisorUnderTest,
  clock: Clock,
  caseLimitMs: number,
  signal: AbortSignal,
): Promise<ConformanceResult[]> {
  const results: ConformanceResult[] = [];
  for (const { name, needs, run } of CONFORMANCE_CASES) {
    const absent = needs.filter((capability) => !under.hypervisor.capabilities.has(capability));
    if (absent.length > 0) {
      results.push({ name, outcome: 'not declared', message: absent.join(', ') });
      continue;
    }
    try {
      await withDeadline(clock, caseLimitMs, 'The case', signal, (bounded) =>
        abortable(run(under, bounded), bounded),
      );
      results.push({ name, outcome: 'passed', message: '' });
    } catch (error) {
      signal.throwIfAborted();
      const message = describeError(error)
        .trim()
        .replaceAll(/\s*\n\s*/g, ' ');
      results.push({ name, outcome: 'failed', message });
    }
  }
  return results;
}
