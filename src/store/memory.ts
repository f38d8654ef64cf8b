import { systemClock } from '../base/clock.ts';
import type { Clock } from '../base/clock.ts';
import { silentLog } from '../base/log.ts';
import { Engine } from './engine.ts';
import { noJournal } from './journal.ts';
import { clusterOwnsAll } from './partitions.ts';
import { STORE_LIMITS } from './store.ts';
import type { PartitionOf, Store, StoreLimits } from './store.ts';

export interface MemoryStoreOptions {
  /** @default the system's clock */
  clock?: Clock;
  /** @default STORE_LIMITS, for each limit that is not given */
  limits?: Partial<StoreLimits>;
  /** @default everything belongs to the cluster */
  partitionOf?: PartitionOf;
}

/** A store that lives and dies with the process. For tests, and for nodes that pretend. */
export function createMemoryStore(options: MemoryStoreOptions = {}): Store {
  const engine = new Engine({
    clock: options.clock ?? systemClock,
    log: silentLog,
    limits: { ...STORE_LIMITS, ...options.limits },
    journal: noJournal,
    isVolatile: () => true,
    mayBeVolatile: () => true,
    partitionOf: options.partitionOf ?? clusterOwnsAll,
    revision: 0,
    reservedRevision: Infinity,
    floors: new Map(),
  });
  engine.start();
  return engine;
}
