import { FakeClock } from '../../base/clock.fake.ts';
import { rfc3339 } from '../../base/clock.ts';
import { createLog } from '../../base/log.ts';
import { seededRandom } from '../../base/random.ts';
import type { Pod } from '../../api/types.generated.ts';
import { createClient } from '../../client/client.ts';
import { createEventRecorder } from '../../client/events.ts';
import { createInformerFactory } from '../../client/informer.ts';
import { EVENTS, PODS } from '../../client/resources.ts';
import type { Resource } from '../../client/resources.ts';
import { createFakeApi, pass } from '../../client/testing.fake.ts';
import type { FakeApi } from '../../client/testing.fake.ts';
import type { ControllerContext } from './context.ts';

/** Long waits are made in longer steps. */
const STEP_COUNT_MAX = 100;

/** Controllers over an API in memory, with time moved by hand. */
export interface TestCluster {
  api: FakeApi;
  clock: FakeClock;
  context: ControllerContext;
  /** Warnings and errors that were logged. */
  complaints: string[];
  /** Moves time; everything that follows from it has happened afterwards. */
  pass(durationMs: number): Promise<void>;
  /** As a kubelet: pods run and are ready, or what `status` says. */
  runPods(choose?: (pod: Pod) => boolean, isReady?: boolean): void;
  /** `reason: message` of the events about an object of this name. */
  eventsAbout(name: string): string[];
}

export function startTestCluster(
  test: { after(end: () => Promise<void>): void },
  controllers: ((context: ControllerContext) => Promise<void>)[],
  extraResources: Resource[] = [],
): TestCluster {
  const clock = new FakeClock();
  const api = createFakeApi(clock, extraResources);
  const ending = new AbortController();
  const complaints: string[] = [];
  const log = createLog({
    component: 'test',
    level: 'warn',
    write: (line) => void complaints.push(line),
    nowMs: () => clock.nowMs(),
  });
  const client = createClient(api.transport, { userAgent: 'test' });
  const base = { client, clock, random: seededRandom(1), log, signal: ending.signal };
  const context: ControllerContext = {
    ...base,
    informers: createInformerFactory(base),
    events: createEventRecorder({ ...base, component: 'test' }),
  };
  const running = controllers.map((controller) => controller(context));
  test.after(async () => {
    ending.abort();
    await Promise.all(running);
  });
  return {
    api,
    clock,
    context,
    complaints,
    pass: (durationMs) => pass(clock, durationMs, Math.max(50, durationMs / STEP_COUNT_MAX)),
    runPods(choose = () => true, isReady = true) {
      for (const pod of api.all(PODS).filter(choose)) {
        const status = isReady ? 'True' : 'False';
        const known = pod.status?.conditions?.[0];
        if (pod.metadata.deletionTimestamp || known?.status === status) continue;
        const lastTransitionTime = rfc3339(clock.nowMs());
        const conditions = [{ type: 'Ready', status, lastTransitionTime }];
        api.put(PODS, { ...pod, status: { ...pod.status, phase: 'Running', conditions } });
      }
    },
    eventsAbout: (name) =>
      api
        .all(EVENTS)
        .filter((event) => (event.involvedObject as { name: string }).name === name)
        .map(({ reason, message }) => `${String(reason)}: ${String(message)}`),
  };
}
