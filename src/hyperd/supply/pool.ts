import { totalmem } from 'node:os';
import { POOL_MEMORY_FRACTION } from '../../api/hyperd.ts';
import type { PoolStatus } from '../../api/hyperd.ts';
import type { Clock, Timer } from '../../base/clock.ts';
import { describeError } from '../../base/log.ts';
import type { Log } from '../../base/log.ts';
import type { StartedImage, VmRequest, WarmVm } from './supply.ts';

/**
 * VMs that wait for pods, by what the pods ask for. Each kind is wanted in a number that follows how
 * many were taken lately, within a budget of memory that all kinds share; one that nobody asked for
 * in a while is wanted no more.
 *
 *   take() ──> arrivals ──> wanted ──> made one after the other, in the background ──> waiting
 */
export interface Pool {
  /** The VM that waited longest; undefined where none does. Counts as an arrival either way. */
  take(request: VmRequest): WarmVm | undefined;
  /** What the VMs of this kind that are made from now on are made ready for. */
  noteStart(request: VmRequest, image: StartedImage): void;
  status(): PoolStatus[];
  /** Those that wait at the moment. */
  waiting(): { request: VmRequest; warm: WarmVm }[];
  /**
   * How much memory an owner's VMs may take while they wait: what is over it ends. Holds until it is
   * set again. @param memoryMib undefined for no limit but the pool's own
   */
  limit(owner: string, memoryMib: number | undefined): void;
  /** Ends all that is, or is being made, for an owner; resolves when it is gone. */
  forget(owner: string): Promise<void>;
  /** Ends all that wait. */
  close(): Promise<void>;
}

export interface PoolPolicy {
  /** `adaptive` follows the arrivals; `fixed` keeps `count` of each kind; `off` keeps none. */
  kind: 'adaptive' | 'fixed' | 'off';
  /** Of `fixed`: how many of each kind; of `adaptive`: how many at most. */
  count: number;
  /** That the waiting VMs of all kinds may take together, as if all of theirs were used. */
  memoryMib: number;
}

export interface PoolOptions {
  policy: PoolPolicy;
  clock: Clock;
  log: Log;
  make: (
    request: VmRequest,
    image: StartedImage | undefined,
    signal: AbortSignal,
  ) => Promise<WarmVm>;
  /** Ends one that nobody took. Never rejects. */
  end: (warm: WarmVm) => Promise<void>;
  /** Memory of the host that a VM may take. */
  memoryMibOf: (request: VmRequest) => number;
  /** Whether the host has so little memory left that nothing should wait. */
  isShortOfMemory: () => boolean;
}

/** No more than a few of each kind. */
export function defaultPolicy(): PoolPolicy {
  const memoryMib = Math.floor((totalmem() * POOL_MEMORY_FRACTION) / 2 ** 20);
  return { kind: 'adaptive', count: 8, memoryMib };
}

/** Arrivals of this span are expected again. It is several times what making a VM takes. */
const ARRIVALS_SPAN_MS = 5_000;
/**
 * A pod that got its VM here has started within this time. What is made for the next one takes as
 * much of the machine as the start itself, so it waits meanwhile, unless it is missing already.
 */
const START_MS = 300;
/** Of a kind that nobody has asked for so long, none is kept. */
const IDLE_MS = 10 * 60_000;
const LOOK_MS = 30_000;
/** After a failure; doubles with each in a row. */
const RETRY_MS = 2_000;
const RETRY_MAX_MS = 120_000;
/** Kinds remembered; the one that was used longest ago is forgotten. */
const KINDS_MAX = 256;
/** Kinds for which one is made at the same time: some wait for their template. */
const MAKERS_MAX = 2;

interface Kind {
  request: VmRequest;
  /** What was started last. */
  image: StartedImage | undefined;
  waiting: WarmVm[];
  /** The one that is being made; settles when it has been, or has failed. */
  making: { done: Promise<void>; life: AbortController } | undefined;
  arrivalsMs: number[];
  usedAtMs: number;
  /** In a row. */
  failures: number;
  /** Not before then is another one made. */
  notBeforeMs: number;
  hits: number;
  misses: number;
}

export function createPool(options: PoolOptions): Pool {
  return new WarmPool(options);
}

class WarmPool implements Pool {
  readonly #options: PoolOptions;
  readonly #kinds = new Map<string, Kind>();
  /** MiB, by owner. */
  readonly #limits = new Map<string, number>();
  readonly #life = new AbortController();
  readonly #ending = new Set<Promise<void>>();
  readonly #makers = new Set<Promise<void>>();
  #look: Timer;
  #retry: Timer | undefined;
  #start: Timer | undefined;
  #startedMs = Number.NEGATIVE_INFINITY;

  constructor(options: PoolOptions) {
    this.#options = options;
    this.#look = options.clock.after(LOOK_MS, () => this.#lookAround());
  }

  take(request: VmRequest): WarmVm | undefined {
    const { clock, policy } = this.#options;
    if (request.shape.owner === '' || policy.kind === 'off') return undefined;
    const kind = this.#kindOf(request);
    const nowMs = clock.monotonicMs();
    kind.usedAtMs = nowMs;
    kind.arrivalsMs = [...kind.arrivalsMs, nowMs].slice(-policy.count);
    const warm = kind.waiting.shift();
    if (warm === undefined) {
      kind.misses += 1;
    } else {
      kind.hits += 1;
      this.#startedMs = nowMs;
      this.#start?.cancel();
      this.#start = clock.after(START_MS, () => this.#wake());
    }
    this.#wake();
    return warm;
  }

  noteStart(request: VmRequest, image: StartedImage): void {
    const kind = this.#kinds.get(JSON.stringify(request));
    if (kind !== undefined) kind.image = image;
  }

  #kindOf(request: VmRequest): Kind {
    const key = JSON.stringify(request);
    let kind = this.#kinds.get(key);
    if (kind === undefined) {
      kind = {
        ...{
          request,
          image: undefined,
          waiting: [],
          making: undefined,
          arrivalsMs: [],
          usedAtMs: 0,
          failures: 0,
        },
        ...{ notBeforeMs: 0, hits: 0, misses: 0 },
      };
      this.#kinds.set(key, kind);
      if (this.#kinds.size > KINDS_MAX) this.#forgetOldest();
    }
    return kind;
  }

  #forgetOldest(): void {
    const idle = [...this.#kinds].filter(([, { making }]) => making === undefined);
    const [oldest] = idle.sort(([, a], [, b]) => a.usedAtMs - b.usedAtMs);
    if (oldest === undefined) return;
    this.#kinds.delete(oldest[0]);
    this.#drain(oldest[1], 0);
  }

  #wanted(kind: Kind): number {
    const { policy, clock } = this.#options;
    const nowMs = clock.monotonicMs();
    if (nowMs - kind.usedAtMs > IDLE_MS || this.#options.isShortOfMemory()) return 0;
    if (policy.kind === 'fixed') return policy.count;
    const recent = kind.arrivalsMs.filter((atMs) => nowMs - atMs < ARRIVALS_SPAN_MS).length;
    return Math.min(Math.max(1, recent), policy.count);
  }

  /** The kind that lacks most, as far as the budget goes; the most recently used of equals. */
  #next(): Kind | undefined {
    const { policy, memoryMibOf, clock } = this.#options;
    const kinds = [...this.#kinds.values()];
    const used = this.#usedMib(kinds);
    const nowMs = clock.monotonicMs();
    const lack = (kind: Kind) => this.#wanted(kind) - kind.waiting.length;
    const isStarting = nowMs - this.#startedMs < START_MS;
    const candidates = kinds.filter(
      (kind) =>
        lack(kind) > 0 &&
        kind.making === undefined &&
        nowMs >= kind.notBeforeMs &&
        !(isStarting && kind.waiting.length > 0) &&
        used + memoryMibOf(kind.request) <= policy.memoryMib &&
        this.#usedMib(this.#kindsOf(kind)) + memoryMibOf(kind.request) <= this.#limitOf(kind),
    );
    return candidates.sort((a, b) => lack(b) - lack(a) || b.usedAtMs - a.usedAtMs)[0];
  }

  #usedMib(kinds: Kind[]): number {
    const count = ({ waiting, making }: Kind) => waiting.length + Number(making !== undefined);
    const { memoryMibOf } = this.#options;
    return kinds.reduce((sum, kind) => sum + count(kind) * memoryMibOf(kind.request), 0);
  }

  /** All of its owner's. */
  #kindsOf({ request }: Kind): Kind[] {
    return this.#ofOwner(request.shape.owner);
  }

  #ofOwner(owner: string): Kind[] {
    return [...this.#kinds.values()].filter(({ request }) => request.shape.owner === owner);
  }

  #limitOf({ request }: Kind): number {
    return this.#limits.get(request.shape.owner) ?? Number.POSITIVE_INFINITY;
  }

  #wake(): void {
    while (!this.#life.signal.aborted && this.#makers.size < MAKERS_MAX) {
      const kind = this.#next();
      if (kind === undefined) return;
      const life = new AbortController();
      const done = this.#makeOne(kind, life.signal).finally(() => {
        if (kind.making?.done === done) kind.making = undefined;
        this.#makers.delete(done);
        this.#wake();
      });
      kind.making = { done, life };
      this.#makers.add(done);
    }
  }

  async #makeOne(kind: Kind, life: AbortSignal): Promise<void> {
    const { clock, log, make } = this.#options;
    const signal = AbortSignal.any([life, this.#life.signal]);
    try {
      const warm = await make(kind.request, kind.image, signal);
      kind.failures = 0;
      this.#keep(kind, warm);
    } catch (error) {
      if (signal.aborted) return;
      const delayMs = Math.min(RETRY_MAX_MS, RETRY_MS * 2 ** kind.failures);
      kind.failures += 1;
      kind.notBeforeMs = clock.monotonicMs() + delayMs;
      this.#retry?.cancel();
      this.#retry = clock.after(delayMs, () => this.#wake());
      log.warn('VM for the pool cannot be made', { error: describeError(error), delayMs });
    }
  }

  #keep(kind: Kind, warm: WarmVm): void {
    const isForgotten = this.#kinds.get(JSON.stringify(kind.request)) !== kind;
    if (isForgotten || this.#life.signal.aborted) return void this.#end(warm);
    // It is counted once: as one that waits.
    kind.making = undefined;
    kind.waiting.push(warm);
    this.#enforceLimit(kind.request.shape.owner);
    void warm.vm.exited.then(() => {
      const at = kind.waiting.indexOf(warm);
      if (at < 0) return;
      kind.waiting.splice(at, 1);
      this.#options.log.warn('VM of the pool has ended', { vm: warm.id });
      this.#end(warm);
      this.#wake();
    });
  }

  #lookAround(): void {
    const { clock } = this.#options;
    this.#look = clock.after(LOOK_MS, () => this.#lookAround());
    for (const kind of this.#kinds.values()) this.#drain(kind, this.#wanted(kind));
    this.#wake();
  }

  #drain(kind: Kind, wanted: number): void {
    while (kind.waiting.length > wanted) {
      const warm = kind.waiting.pop();
      if (warm !== undefined) this.#end(warm);
    }
  }

  #end(warm: WarmVm): void {
    const ending = this.#options.end(warm).finally(() => this.#ending.delete(ending));
    this.#ending.add(ending);
  }

  status(): PoolStatus[] {
    return [...this.#kinds.values()].map((kind) => ({
      owner: kind.request.shape.owner,
      cpuCount: kind.request.shape.cpuCount,
      memoryMib: kind.request.shape.memoryMib,
      network: kind.request.network?.id ?? '',
      waiting: kind.waiting.length,
      making: Number(kind.making !== undefined),
      wanted: this.#wanted(kind),
      hits: kind.hits,
      misses: kind.misses,
    }));
  }

  waiting(): { request: VmRequest; warm: WarmVm }[] {
    return [...this.#kinds.values()].flatMap(({ request, waiting }) =>
      waiting.map((warm) => ({ request, warm })),
    );
  }

  limit(owner: string, memoryMib: number | undefined): void {
    if (memoryMib === undefined) this.#limits.delete(owner);
    else this.#limits.set(owner, memoryMib);
    this.#enforceLimit(owner);
    this.#wake();
  }

  /** Those of the kind that was asked for longest ago end first. */
  #enforceLimit(owner: string): void {
    const limitMib = this.#limits.get(owner);
    if (limitMib === undefined) return;
    const kinds = this.#ofOwner(owner).sort((a, b) => a.usedAtMs - b.usedAtMs);
    while (this.#usedMib(kinds) > limitMib) {
      const kind = kinds.find(({ waiting }) => waiting.length > 0);
      if (kind === undefined) return;
      this.#drain(kind, kind.waiting.length - 1);
    }
  }

  async forget(owner: string): Promise<void> {
    const kinds = this.#ofOwner(owner);
    this.#limits.delete(owner);
    for (const kind of kinds) {
      this.#kinds.delete(JSON.stringify(kind.request));
      kind.making?.life.abort(new Error(`"${owner}" is forgotten`));
      this.#drain(kind, 0);
    }
    await Promise.all(kinds.map(({ making }) => making?.done));
    await Promise.all(this.#ending);
  }

  async close(): Promise<void> {
    this.#life.abort(new Error('The daemon is ending'));
    this.#look.cancel();
    this.#retry?.cancel();
    this.#start?.cancel();
    await Promise.all(this.#makers);
    for (const kind of this.#kinds.values()) this.#drain(kind, 0);
    await Promise.all(this.#ending);
  }
}
