import type { Clock } from '../base/clock.ts';
import type { Log } from '../base/log.ts';
import type { Client } from '../client/client.ts';
import type { PodEvents } from './events.ts';
import type { Holdings } from './holdings.ts';
import type { HyperdClient } from '../client/hyperd.ts';
import type { NodeRoom } from './node-room.ts';
import type { PodNetwork } from './pod-network.ts';
import type { ReferencedObjects } from './objects.ts';
import type { SandboxDefaults } from './sandbox-spec.ts';
import type { Sandboxes } from './sandboxes.ts';
import type { ApiServerEndpoint } from './service-env.ts';
import type { NodeSize } from './sizes.ts';
import type { TokenSource } from './tokens.ts';

/** What all pods of a node share. */
export interface NodeContext {
  client: Client;
  hyperd: HyperdClient;
  sandboxes: Sandboxes;
  clock: Clock;
  log: Log;
  events: PodEvents;
  holdings: Pick<Holdings, 'claim'>;
  objects: ReferencedObjects;
  tokens: TokenSource;
  apiServer: ApiServerEndpoint;
  hostIp: string;
  size: NodeSize & { memoryBytes: number };
  room: NodeRoom;
  network: PodNetwork;
  sandboxDefaults: () => Promise<SandboxDefaults>;
}
