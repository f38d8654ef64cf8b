import type { Clock } from '../../base/clock.ts';
import type { Random } from '../../base/random.ts';
import { assert } from '../../base/assert.ts';
import type { TokenKey } from './records.ts';
import type { IdentityState } from './state.ts';

/** The one object that holds all keys, so that they change together. */
const KEY_SET_ID = 'tokens';
const SECRET_BYTES = 32;

export interface TokenKeys {
  /** Makes the first keys where there are none. */
  ensure(): Promise<void>;
  /** The key that signs. */
  primary(): { number: number; secret: Buffer };
  secretOf(keyNumber: number): Buffer | undefined;
  /**
   * The staged key becomes the one that signs: all servers know it already. The one before it goes
   * on to verify until its last token has expired, and a new key is staged.
   */
  rotate(): Promise<void>;
  /** Rotates when it is time; drops what verifies nothing any more. */
  maintain(): Promise<void>;
}

export interface TokenKeysOptions {
  state: IdentityState;
  clock: Clock;
  random: Random;
  /** How long a key signs. */
  rotationMs: number;
  /** The longest life of a token. */
  tokenLifetimeMs: number;
}

/** Keys whose tokens have all expired go this much later: clocks of servers may differ. */
const RETIRE_SLACK_MS = 60 * 60_000;

export function createTokenKeys(options: TokenKeysOptions): TokenKeys {
  const { state, clock, random, rotationMs, tokenLifetimeMs } = options;
  const table = state.tables.tokenkeys;
  let cachedFrom: TokenKey[] | undefined;
  let secrets = new Map<number, Buffer>();

  const keys = () => table.get(KEY_SET_ID)?.keys ?? [];
  const refresh = () => {
    const current = keys();
    if (current === cachedFrom) return;
    cachedFrom = current;
    secrets = new Map(current.map((key) => [key.number, Buffer.from(key.secret, 'base64')]));
  };
  const makeKey = (keyState: TokenKey['state'], existing: TokenKey[]): TokenKey => {
    let number = 0;
    while (number === 0 || existing.some((key) => key.number === number)) {
      number = Buffer.from(random.bytes(4)).readUInt32BE();
    }
    const secret = Buffer.from(random.bytes(SECRET_BYTES)).toString('base64');
    return { number, secret, state: keyState, createdAtMs: clock.nowMs() };
  };
  const expired = (key: TokenKey) =>
    key.retiredAtMs !== undefined &&
    key.retiredAtMs + tokenLifetimeMs + RETIRE_SLACK_MS < clock.nowMs();

  const rotated = (before: TokenKey[]): TokenKey[] => {
    const nowMs = clock.nowMs();
    const kept = before.map((key): TokenKey => {
      if (key.state === 'staged') return { ...key, state: 'primary', createdAtMs: nowMs };
      if (key.state === 'primary') return { ...key, state: 'retired', retiredAtMs: nowMs };
      return key;
    });
    return [makeKey('staged', kept), ...kept];
  };
  const due = (current: TokenKey[]) =>
    current.some((key) => key.state === 'primary' && key.createdAtMs + rotationMs <= clock.nowMs());

  return {
    async ensure() {
      await table.upsert(KEY_SET_ID, (current) => {
        if (current) return undefined;
        const primary = makeKey('primary', []);
        return { id: KEY_SET_ID, keys: [makeKey('staged', [primary]), primary] };
      });
    },
    primary() {
      refresh();
      const key = keys().find((candidate) => candidate.state === 'primary');
      const secret = key && secrets.get(key.number);
      assert(key && secret, 'the identity service has a key that signs');
      return { number: key.number, secret };
    },
    secretOf(keyNumber) {
      refresh();
      return secrets.get(keyNumber);
    },
    async rotate() {
      await table.update(KEY_SET_ID, (current) => ({ ...current, keys: rotated(current.keys) }));
    },
    async maintain() {
      await table.upsert(KEY_SET_ID, (current) => {
        if (!current) return undefined;
        const kept = current.keys.filter((key) => !expired(key));
        if (due(kept)) return { ...current, keys: rotated(kept) };
        return kept.length < current.keys.length ? { ...current, keys: kept } : undefined;
      });
    },
  };
}
