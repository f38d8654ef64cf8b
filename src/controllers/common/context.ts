import type { Clock } from '../../base/clock.ts';
import type { Log } from '../../base/log.ts';
import type { Random } from '../../base/random.ts';
import type { Client } from '../../client/client.ts';
import type { EventRecorder } from '../../client/events.ts';
import type { InformerFactory } from '../../client/informer.ts';

/** What every controller works with. A controller runs until `signal` aborts. */
export interface ControllerContext {
  client: Client;
  informers: InformerFactory;
  events: EventRecorder;
  clock: Clock;
  random: Random;
  log: Log;
  signal: AbortSignal;
}

/** Splits `namespace/name`; a key without a slash is a name at cluster scope. */
export function splitKey(key: string): { namespace: string; name: string } {
  const slash = key.indexOf('/');
  return { namespace: key.slice(0, Math.max(0, slash)), name: key.slice(slash + 1) };
}
