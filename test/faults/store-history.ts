/**
 * Judges what a store that is killed again and again says about its history: the acknowledgements
 * its clients received, and what is found at each start after a kill.
 *
 * Every client has at most one operation under way, and numbers its operations. So of all writes
 * that were not acknowledged only the first after a client's last acknowledgement may appear, and
 * no more of them than there are clients.
 */
export interface Write {
  key: string;
  revision: number;
  /** Revision of the state that the write replaced; 0 if there was none. */
  previousRevision: number;
  /** Whose the object is, from its creation on. */
  partition: string;
  deleted: boolean;
  /** `process.client.operation`; empty for a deletion found after a kill. */
  token: string;
}

export interface Acknowledgement extends Write {
  process: number;
  client: number;
  operation: number;
  /** Undefined write: the operation changed nothing. */
  changed: boolean;
  volatile: boolean;
}

/** What is seen in one resource right after a start. */
export interface Recovered {
  /** From here on the events are complete. */
  floor: number;
  /** `key@revision` of each object at the floor, by a list at that revision. */
  base: string[];
  events: Write[];
  state: string[];
}

export interface Recovery {
  revision: number;
  resources: Recovered[];
  /** Objects of volatile resources; there must be none. */
  volatileCount: number;
}

/** The store broke a promise. */
export class HistoryError extends Error {
  override name = 'HistoryError';
}

export class HistoryChecker {
  readonly #known = new Map<number, Write>();
  readonly #headOfKey = new Map<string, Write>();
  readonly #volatileRevisions = new Set<number>();
  /** Writes acknowledged or found, not yet in `headOfKey`. */
  #fresh: Write[] = [];
  /** Last acknowledged operation by `process.client`, of processes not yet followed by a start. */
  #lastOperation = new Map<string, number>();
  #revisionMax = 0;
  #startRevision = 0;
  readonly #clientCount: number;
  acknowledgedCount = 0;
  /** Writes that became durable although nobody was told. */
  unacknowledgedCount = 0;

  constructor(clientCount: number) {
    this.#clientCount = clientCount;
  }

  acknowledge(ack: Acknowledgement): void {
    const client = `${ack.process}.${ack.client}`;
    const last = this.#lastOperation.get(client) ?? -1;
    expect(ack.operation === last + 1, `${client} acknowledges ${ack.operation} after ${last}`);
    this.#lastOperation.set(client, ack.operation);
    this.acknowledgedCount += 1;
    if (!ack.changed) return;
    this.#learn(ack, ack.volatile);
  }

  recover(recovery: Recovery): void {
    const { revision, resources, volatileCount } = recovery;
    const { size: before } = this.#known;
    expect(
      revision > this.#revisionMax,
      `the store starts at ${revision}, but ${this.#revisionMax} was given out before`,
    );
    // A process that wrote nothing leaves no trace, and the next one may start where it did.
    const back = `the store starts at ${revision}, before ${this.#startRevision}`;
    expect(revision >= this.#startRevision, back);
    expect(volatileCount === 0, `${volatileCount} volatile objects survived the process`);
    for (const resource of resources) {
      this.#checkEvents(resource);
      checkReplay(resource);
    }
    this.#checkChains();
    this.#checkState(resources.flatMap(({ state }) => state));
    const surpriseCount = this.#known.size - before;
    const possible = `${this.#clientCount} clients can have had under way`;
    expect(surpriseCount <= this.#clientCount, `${surpriseCount} more writes than ${possible}`);
    this.unacknowledgedCount += surpriseCount;
    this.#lastOperation.clear();
    this.#startRevision = revision;
  }

  #learn(write: Write, volatile: boolean): void {
    const { revision } = write;
    const twice = this.#known.has(revision) || this.#volatileRevisions.has(revision);
    expect(!twice, `revision ${revision} is given out twice: ${describe(write)}`);
    this.#revisionMax = Math.max(this.#revisionMax, revision);
    if (volatile) {
      this.#volatileRevisions.add(revision);
      return;
    }
    this.#known.set(revision, write);
    this.#fresh.push(write);
  }

  #checkEvents({ floor, events, base, state }: Recovered): void {
    const found = new Map(events.map((event) => [event.revision, event]));
    const keys = new Set([...base, ...state].map((item) => item.slice(0, item.lastIndexOf('@'))));
    for (const event of events) keys.add(event.key);
    for (const event of events) {
      expect(event.revision > floor, `event ${event.revision} lies below the floor ${floor}`);
      const known = this.#known.get(event.revision);
      if (known) {
        expect(same(known, event), `${describe(event)} was acknowledged as ${describe(known)}`);
        continue;
      }
      expect(this.#wasUnderWay(event), `nobody asked for ${describe(event)}`);
      this.#learn(event, false);
    }
    for (const write of this.#fresh) {
      if (!keys.has(write.key) || write.revision <= floor) continue;
      expect(found.has(write.revision), `${describe(write)} is lost from the history`);
    }
  }

  #wasUnderWay({ token, deleted }: Write): boolean {
    // A deletion carries no token of its own.
    if (deleted) return true;
    const at = token.lastIndexOf('.');
    const last = this.#lastOperation.get(token.slice(0, at)) ?? -1;
    return Number(token.slice(at + 1)) === last + 1;
  }

  /** Every write of a key rests on the one before it: nothing is lost, nothing forks. */
  #checkChains(): void {
    this.#fresh.sort((a, b) => a.revision - b.revision);
    for (const write of this.#fresh) {
      const head = this.#headOfKey.get(write.key);
      const expected = head && !head.deleted ? head.revision : 0;
      expect(
        write.previousRevision === expected,
        `${describe(write)} rests on ${write.previousRevision}, but ${expected} was there`,
      );
      expect(write.revision > (head?.revision ?? 0), `${describe(write)} goes back`);
      const inherited = expected === 0 || head?.partition === write.partition;
      expect(inherited, `${describe(write)} has left partition ${head?.partition}`);
      this.#headOfKey.set(write.key, write);
    }
    this.#fresh = [];
  }

  #checkState(state: string[]): void {
    const expected = [...this.#headOfKey.values()]
      .filter(({ deleted }) => !deleted)
      .map(({ key, revision }) => `${key}@${revision}`);
    const found = new Set(state);
    for (const item of expected) expect(found.delete(item), `${item} is lost`);
    expect(found.size === 0, `nobody wrote ${[...found].join(', ')}`);
  }
}

/** The state at the floor and all events after it must give the state. */
function checkReplay({ base, events, state }: Recovered): void {
  const replayed = new Map(
    base.map((item) => {
      const at = item.lastIndexOf('@');
      return [item.slice(0, at), Number(item.slice(at + 1))];
    }),
  );
  let last = 0;
  for (const event of events) {
    const { key, revision, previousRevision, deleted } = event;
    expect(revision > last, `${describe(event)} comes after ${last}`);
    last = revision;
    const before = replayed.get(key) ?? 0;
    expect(before === previousRevision, `${describe(event)} is replayed onto ${before}`);
    if (deleted) replayed.delete(key);
    else replayed.set(key, revision);
  }
  const result = [...replayed].map(([key, revision]) => `${key}@${revision}`).sort();
  const same = JSON.stringify(result) === JSON.stringify([...state].sort());
  expect(same, 'the watch from the floor does not lead to the state');
}

function same(a: Write, b: Write): boolean {
  return (
    a.key === b.key &&
    a.previousRevision === b.previousRevision &&
    a.partition === b.partition &&
    a.deleted === b.deleted &&
    (a.deleted || a.token === b.token)
  );
}

function describe({ key, revision, previousRevision, partition, ...write }: Write): string {
  const owner = partition && ` in partition ${partition}`;
  const what = `${write.deleted ? 'deletion' : 'write'} ${write.token} of ${key}${owner}`;
  return `${what} at ${revision} on ${previousRevision}`;
}

function expect(condition: boolean, message: string): void {
  if (!condition) throw new HistoryError(message);
}
