import type { Strategy } from '../strategy.ts';

export const podStrategy: Strategy = {
  hasGeneration: true,
  statusWritesMetadata: true,
  returnsDeletedObject: true,
  prepareCreate(pod) {
    pod.status = { phase: 'Pending' };
  },
};
