import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { HistoryChecker, HistoryError } from './store-history.ts';
import type { Acknowledgement, Recovery, Write } from './store-history.ts';

const ack = (operation: number, write: Partial<Acknowledgement>): Acknowledgement => ({
  process: 1,
  client: 1,
  operation,
  key: 'pods/a',
  revision: 0,
  previousRevision: 0,
  partition: '',
  deleted: false,
  token: `1.1.${operation}`,
  changed: true,
  volatile: false,
  ...write,
});

const history: Acknowledgement[] = [
  ack(0, { revision: 2 }),
  ack(1, { revision: 3, previousRevision: 2 }),
  ack(2, { revision: 4, key: 'pods/b' }),
  ack(3, { revision: 5, key: 'pods/b', previousRevision: 4, deleted: true }),
  ack(4, { revision: 6, key: 'events/e', volatile: true }),
];

const asFound = ({ key, revision, previousRevision, partition, deleted, token }: Write): Write => ({
  key,
  revision,
  previousRevision,
  partition,
  deleted,
  token,
});

const event = (key: string, revision: number, previousRevision: number, token: string): Write => ({
  key,
  revision,
  previousRevision,
  partition: '',
  deleted: false,
  token,
});

const truth = (): Recovery => ({
  revision: 100,
  volatileCount: 0,
  resources: [
    {
      floor: 0,
      base: [],
      events: history.filter(({ volatile }) => !volatile).map(asFound),
      state: ['pods/a@3'],
    },
  ],
});

/** What the checker says to the history followed by this recovery. */
function judge(spoil: (recovery: Recovery, events: Write[], state: string[]) => void): void {
  const checker = new HistoryChecker(1);
  for (const each of history) checker.acknowledge(each);
  const recovery = truth();
  const [resource] = recovery.resources;
  assert.ok(resource);
  spoil(recovery, resource.events, resource.state);
  checker.recover(recovery);
}

describe('HistoryChecker', () => {
  it('accepts the truth, and a write that was under way', () => {
    judge(() => {});
    judge((_, events, state) => {
      const token = '1.1.5';
      events.push(event('pods/c', 7, 0, token));
      state.push('pods/c@7');
    });
  });

  const refuses = (
    title: string,
    message: RegExp,
    spoil: (recovery: Recovery, events: Write[], state: string[]) => void,
  ) =>
    it(`refuses ${title}`, () => {
      assert.throws(
        () => judge(spoil),
        (error) => {
          assert.ok(error instanceof HistoryError, String(error));
          assert.match(error.message, message);
          return true;
        },
      );
    });

  refuses('a lost write', /write 1\.1\.1 of pods\/a at 3 on 2 is lost/, (_, events, state) => {
    events.splice(1, 1);
    state[0] = 'pods/a@2';
  });
  refuses('a lost deletion', /deletion .* of pods\/b at 5 on 4 is lost/, (_, events, state) => {
    events.pop();
    state.push('pods/b@4');
  });
  refuses('a lost object', /does not lead to the state/, (_, __, state) => state.pop());
  refuses('an object lost with its history', /pods\/a@3 is lost/, (_, events, state) => {
    events.splice(0, 2);
    state.pop();
  });
  refuses('a write that nobody asked for', /nobody asked for/, (_, events, state) => {
    const token = '1.1.6';
    events.push(event('pods/c', 7, 0, token));
    state.push('pods/c@7');
  });
  refuses('another value than was acknowledged', /was acknowledged as/, (_, events) => {
    events[1] = { ...(events[1] as Write), token: '1.1.9' };
  });
  refuses('another partition than was acknowledged', /was acknowledged as/, (_, events) => {
    events[1] = { ...(events[1] as Write), partition: 'red' };
  });
  refuses('a version in another partition', /at 7 on 3 has left partition/, (_, events, state) => {
    events.push({ ...event('pods/a', 7, 3, '1.1.5'), partition: 'red' });
    state[0] = 'pods/a@7';
  });
  refuses('a revision used twice', /given out twice/, (_, events, state) => {
    const token = '1.1.5';
    events.push(event('pods/c', 6, 0, token));
    state.push('pods/c@6');
  });
  refuses('a revision that goes back', /starts at 6, but 6 was given out/, (recovery) => {
    recovery.revision = 6;
  });
  refuses('a fork', /is replayed onto 3/, (_, events, state) => {
    const token = '1.1.5';
    events.push(event('pods/a', 7, 2, token));
    state[0] = 'pods/a@7';
  });
  refuses('more deletions than were under way', /2 more writes than 1 clients/, (_, events) => {
    events.push(event('pods/c', 7, 0, '1.1.5'));
    events.push({ ...event('pods/c', 8, 7, ''), deleted: true });
  });
  refuses('a volatile object that survived', /1 volatile objects/, (recovery) => {
    recovery.volatileCount = 1;
  });
});
