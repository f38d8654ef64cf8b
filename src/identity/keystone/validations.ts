import { hash } from 'node:crypto';
import { IDENTITY_CACHE_MS, IdentityUnavailableError } from '../../api/identity.ts';
import type { IdentityToken } from '../../api/identity.ts';
import type { Clock } from '../../base/clock.ts';
import type { Log } from '../../base/log.ts';
import { createLru } from './lru.ts';
import type { Outage } from './outage.ts';
import { createPace } from './pace.ts';
import { CLOCK_SKEW_NOTICE_MS } from './session.ts';

/** What tokens stand for, remembered by their SHA-256: the tokens themselves are not kept. */
export interface Validations {
  validate(token: string, signal?: AbortSignal): Promise<IdentityToken | undefined>;
  close(): void;
}

export interface ValidationsOptions {
  describe: (token: string, userId?: string) => Promise<IdentityToken | undefined>;
  keystoneNowMs: () => number;
  outage: Outage;
  outageGraceMs: number;
  validationsPerS: number;
  clock: Clock;
  log: Log;
}

/** A token in use is asked about again from this age on, before anybody has to wait for it. */
const REFRESH_AGE_MS = IDENTITY_CACHE_MS * 0.6;
const TOKENS_MAX = 10_000;
/** When a question takes longer, it is found out meanwhile whether Keystone is away. */
const SLOW_MS = 1_500;
/** A token becomes valid again where Keystone's servers differ for a moment, and no later. */
const REFUSED_REMEMBERED_MS = 2_000;
const REFUSED_MAX = 10_000;
/** Keystone said "valid" of a token that ended so long ago: one of the clocks is wrong. */
const EXPIRED_TOLERANCE_MS = 5 * 60_000;

interface Entry {
  token: IdentityToken;
  /** When the question was sent whose answer this is. */
  askedAtMs: number;
  /** When the token ends, on the monotonic clock. */
  endsAtMs: number;
}

type Verdict = { entry: Entry | undefined };

export function createValidations(options: ValidationsOptions): Validations {
  const { clock, outage, log } = options;
  const known = createLru<Entry>(TOKENS_MAX);
  const refused = createLru<number>(REFUSED_MAX);
  const flights = new Map<string, Promise<Verdict>>();
  // Whoever shows made-up tokens must not keep those from being looked at that are in use.
  const paceOfKnown = createPace(options.validationsPerS, clock);
  const paceOfNew = createPace(options.validationsPerS, clock);
  const ended = new AbortController();

  const entryOf = (token: IdentityToken, askedAtMs: number): Entry => {
    const skewMs = options.keystoneNowMs() - clock.nowMs();
    const leftMs = token.expiresAtMs - options.keystoneNowMs();
    if (leftMs < -EXPIRED_TOLERANCE_MS) {
      throw new IdentityUnavailableError(
        `Keystone accepts a token that ended ${Math.round(-leftMs / 1000)} s ago by its clock`,
      );
    }
    const endsAtMs = clock.monotonicMs() + leftMs;
    if (Math.abs(skewMs) <= CLOCK_SKEW_NOTICE_MS) return { token, askedAtMs, endsAtMs };
    const [issuedAtMs, expiresAtMs] = [token.issuedAtMs - skewMs, token.expiresAtMs - skewMs];
    return { token: { ...token, issuedAtMs, expiresAtMs }, askedAtMs, endsAtMs };
  };

  const ask = async (key: string, token: string, old: Entry | undefined): Promise<Verdict> => {
    if (!(await (old ? paceOfKnown : paceOfNew).turn())) {
      throw new IdentityUnavailableError(
        `Cannot validate token: more than ${options.validationsPerS} a second are new`,
      );
    }
    const askedAtMs = clock.monotonicMs();
    let answer: IdentityToken | undefined;
    const slow = clock.after(SLOW_MS, () => void outage.suspect());
    try {
      answer = await options.describe(token, old?.token.user.id);
    } catch (error) {
      await outage.suspect();
      if (error instanceof IdentityUnavailableError) throw error;
      throw new IdentityUnavailableError('Cannot validate token', { cause: error });
    } finally {
      slow.cancel();
    }
    if (!answer) {
      known.delete(key);
      refused.set(key, clock.monotonicMs() + REFUSED_REMEMBERED_MS);
      return { entry: undefined };
    }
    const entry = entryOf(answer, askedAtMs);
    known.set(key, entry);
    refused.delete(key);
    return { entry };
  };

  /** One question for all who want to know the same now. */
  const flight = (key: string, token: string, old: Entry | undefined): Promise<Verdict> => {
    const running = flights.get(key);
    if (running) return running;
    const started = ask(key, token, old).finally(() => flights.delete(key));
    flights.set(key, started);
    return started;
  };

  const refresh = (key: string, token: string, old: Entry): void => {
    if (flights.has(key) || outage.cause) return;
    flight(key, token, old).catch((error: unknown) =>
      log.debug('cannot refresh what a token stands for', { error }),
    );
  };

  /** The answer, or the end of waiting: the caller gave up, or Keystone was found to be away. */
  const patiently = (running: Promise<Verdict>, signal?: AbortSignal): Promise<Verdict> => {
    const { promise, resolve, reject } = Promise.withResolvers<Verdict>();
    const giveUp = () => reject(signal?.reason ?? ended.signal.reason);
    const unsubscribe = outage.onBegin(() => reject(outage.cause));
    signal?.addEventListener('abort', giveUp, { once: true });
    ended.signal.addEventListener('abort', giveUp, { once: true });
    running.then(resolve, reject);
    return promise.finally(() => {
      unsubscribe();
      signal?.removeEventListener('abort', giveUp);
      ended.signal.removeEventListener('abort', giveUp);
    });
  };

  const consult = async (
    key: string,
    token: string,
    old: Entry | undefined,
    signal?: AbortSignal,
  ): Promise<IdentityToken | undefined> => {
    // Only then: a question that Keystone fails at must not make its token live on.
    const mayServeOld = () => {
      const nowMs = clock.monotonicMs();
      const isRecent = old && nowMs - old.askedAtMs < options.outageGraceMs;
      return outage.cause !== undefined && isRecent && nowMs < old.endsAtMs;
    };
    try {
      if (outage.cause) throw outage.cause;
      return (await patiently(flight(key, token, old), signal)).entry?.token;
    } catch (error) {
      signal?.throwIfAborted();
      ended.signal.throwIfAborted();
      if (old && mayServeOld()) return old.token;
      throw error;
    }
  };

  return {
    async validate(token, signal) {
      signal?.throwIfAborted();
      ended.signal.throwIfAborted();
      const key = hash('sha256', token, 'base64url');
      const nowMs = clock.monotonicMs();
      const entry = known.get(key);
      if (entry && nowMs < entry.endsAtMs) {
        const ageMs = nowMs - entry.askedAtMs;
        if (ageMs >= REFRESH_AGE_MS && ageMs < IDENTITY_CACHE_MS) refresh(key, token, entry);
        return ageMs < IDENTITY_CACHE_MS ? entry.token : consult(key, token, entry, signal);
      }
      if (nowMs < (refused.get(key) ?? 0)) return undefined;
      return consult(key, token, entry, signal);
    },
    close: () => ended.abort(new IdentityUnavailableError('the identity provider is closed')),
  };
}
