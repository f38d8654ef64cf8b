import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Pod } from '../api/types.generated.ts';
import { viewPod } from './history.ts';

/** A pod whose container waits, as its status tells it. */
function waitingPod(containerID: string, endedID: string, restartCount: number): Pod {
  const image = { image: 'i', imageID: 'sha256:1' };
  const terminated = { containerID: endedID, exitCode: 1, finishedAt: '2026-01-01T00:00:00Z' };
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'p', namespace: 'n', uid: 'u' },
    spec: { containers: [{ name: 'main' }] },
    status: {
      containerStatuses: [
        {
          ...{ name: 'main', ...image, ready: false, started: false, restartCount, containerID },
          state: { waiting: { reason: 'ContainerCreating' } },
          lastState: { terminated },
        },
      ],
    },
  };
}

const numbers = (pod: Pod) =>
  viewPod(pod, []).containers.flatMap(({ attempts }) => attempts.map(({ number }) => number));

test('the attempt that ended last has its number, whether or not the next one is on its way', () => {
  assert.deepEqual(numbers(waitingPod('hyper://a', 'hyper://a', 1)), [1]);
  assert.deepEqual(numbers(waitingPod('hyper://b', 'hyper://a', 2)), [1]);
});
