import {
  NOTHING,
  allowancesOf,
  holdingAnnotation,
  holdingsOf,
  ownerOfTenant,
  tenantOfOwner,
} from '../api/holdings.ts';
import type { Allowance } from '../api/holdings.ts';
import type { HyperdInfo } from '../api/hyperd.ts';
import type { Node } from '../api/types.generated.ts';
import type { Clock } from '../base/clock.ts';
import { describeError } from '../base/log.ts';
import type { Log } from '../base/log.ts';
import type { Client } from '../client/client.ts';
import type { HyperdClient } from '../client/hyperd.ts';
import { NODES } from '../client/resources.ts';

/**
 * Tells the API what this node has of tenants beside their pods, and does what the API allows
 * (`api/holdings.ts`). The API knows of a tenant before the node has anything of it, and does not
 * forget it before the node has nothing more: so a tenant that no node names has left nothing.
 */
export interface Holdings {
  /** Resolves when the API knows that there may be something of the owner here. */
  claim(owner: string, signal: AbortSignal): Promise<void>;
  /** The node as it is in the API now. */
  observe(node: Node): void;
  /** Reports and carries out until the signal aborts. Never rejects. */
  run(signal: AbortSignal): Promise<void>;
}

export interface HoldingsOptions {
  client: Client;
  hyperd: Pick<
    HyperdClient,
    'info' | 'pods' | 'pools' | 'templates' | 'images' | 'limitPool' | 'removeOwner'
  >;
  clock: Clock;
  log: Log;
  nodeName: string;
}

const LOOK_MS = 10_000;
/** Between a claim and what it is for; what is claimed is not let go of before. */
const CLAIM_MS = 10 * 60_000;
const MIB = 2 ** 20;

export function createHoldings(options: HoldingsOptions): Holdings {
  return new NodeHoldings(options);
}

class NodeHoldings implements Holdings {
  readonly #options: HoldingsOptions;
  /** What the API has been told: bytes by tenant. Nobody else writes it. */
  #told = new Map<string, number>();
  /** What was found there last, which may be a little old. */
  #seen: { uid: string; holdings: Map<string, number> } = { uid: '', holdings: new Map() };
  #allowances = new Map<string, Allowance>();
  /** What hyperd has been told, and which hyperd: another one knows nothing. */
  #limits = { instance: '', byTenant: new Map<string, number>() };
  readonly #claimedMs = new Map<string, number>();
  /** Writes and removals follow each other: a claim is never undone by what was found before it. */
  #turn: Promise<unknown> = Promise.resolve();
  #changed = Promise.withResolvers<void>();

  constructor(options: HoldingsOptions) {
    this.#options = options;
  }

  async claim(owner: string, signal: AbortSignal): Promise<void> {
    const tenant = tenantOfOwner(owner);
    if (tenant === undefined) return;
    this.#claimedMs.set(tenant, this.#options.clock.monotonicMs());
    if (this.#told.has(tenant)) return;
    await this.#inTurn(async () => {
      if (!this.#told.has(tenant)) await this.#tell(new Map([[tenant, 0]]), signal);
    });
  }

  observe(node: Node): void {
    const { uid = '' } = node.metadata;
    const holdings = holdingsOf(node);
    // Of an earlier kubelet, or of a node that was removed and has registered again.
    if (uid !== this.#seen.uid) this.#told = new Map(holdings);
    this.#seen = { uid, holdings };
    const allowances = allowancesOf(node);
    const isSame = JSON.stringify([...allowances]) === JSON.stringify([...this.#allowances]);
    this.#allowances = allowances;
    if (!isSame) this.#changed.resolve();
  }

  async run(signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#options;
    while (!signal.aborted) {
      this.#changed = Promise.withResolvers();
      try {
        await this.#inTurn(() => this.#look(signal));
      } catch (error) {
        if (signal.aborted) return;
        log.warn('what the node has of tenants cannot be told', { error: describeError(error) });
      }
      const over = new AbortController();
      const rest = clock.sleep(LOOK_MS, AbortSignal.any([signal, over.signal]));
      await Promise.race([rest.catch(() => {}), this.#changed.promise]);
      over.abort();
    }
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#turn.then(work);
    this.#turn = done.catch(() => {});
    return done;
  }

  async #look(signal: AbortSignal): Promise<void> {
    const info = await this.#options.hyperd.info(signal);
    await this.#carryOut(info);
    const held = await this.#held(info);
    const changes = new Map<string, number | undefined>();
    for (const [tenant, bytes] of held) {
      const isTold = this.#told.get(tenant) === bytes && this.#seen.holdings.has(tenant);
      if (!isTold) changes.set(tenant, bytes);
    }
    for (const tenant of this.#told.keys()) {
      if (!held.has(tenant)) changes.set(tenant, undefined);
    }
    if (changes.size > 0) await this.#tell(changes, signal);
  }

  async #carryOut({ instance }: HyperdInfo): Promise<void> {
    const { hyperd } = this.#options;
    if (instance !== this.#limits.instance) this.#limits = { instance, byTenant: new Map() };
    const { byTenant } = this.#limits;
    for (const [tenant, allowance] of this.#allowances) {
      const owner = ownerOfTenant(tenant);
      if (allowance === NOTHING) {
        byTenant.delete(tenant);
        await this.#remove(tenant);
      } else if (byTenant.get(tenant) !== allowance) {
        await hyperd.limitPool(owner, Math.floor(allowance / MIB));
        byTenant.set(tenant, allowance);
      }
    }
    for (const tenant of [...byTenant.keys()]) {
      if (this.#allowances.has(tenant)) continue;
      await hyperd.limitPool(ownerOfTenant(tenant), undefined);
      byTenant.delete(tenant);
    }
  }

  /** What cannot be removed yet stays told of, is tried again, and holds up nobody else's. */
  async #remove(tenant: string): Promise<void> {
    const { hyperd, clock, log } = this.#options;
    try {
      await hyperd.removeOwner(ownerOfTenant(tenant));
      this.#claimedMs.delete(tenant);
    } catch (error) {
      this.#claimedMs.set(tenant, clock.monotonicMs());
      log.warn('what the node has of a tenant cannot be removed yet', {
        ...{ tenant, error: describeError(error) },
      });
    }
  }

  /** Bytes of waiting VMs by tenant, for all of whom there is, or is about to be, anything. */
  async #held({ overhead }: HyperdInfo): Promise<Map<string, number>> {
    const { hyperd, clock } = this.#options;
    const held = new Map<string, number>();
    const nowMs = clock.monotonicMs();
    const add = (owner: string, bytes: number) => {
      const tenant = tenantOfOwner(owner);
      if (tenant !== undefined) held.set(tenant, (held.get(tenant) ?? 0) + bytes);
    };
    for (const [tenant, atMs] of this.#claimedMs) {
      if (nowMs - atMs < CLAIM_MS) held.set(tenant, 0);
      else this.#claimedMs.delete(tenant);
    }
    const [pods, templates, pools, images] = await Promise.all([
      hyperd.pods(),
      hyperd.templates(),
      hyperd.pools(),
      hyperd.images(),
    ]);
    for (const { spec } of pods) add(spec.owner ?? '', 0);
    for (const { owner } of templates) add(owner, 0);
    for (const { usedBy } of images) for (const owner of usedBy) add(owner, 0);
    for (const { owner, waiting, making, memoryMib } of pools) {
      add(owner, (waiting + making) * (memoryMib + overhead.memoryMib) * MIB);
    }
    return held;
  }

  async #tell(changes: Map<string, number | undefined>, signal: AbortSignal): Promise<void> {
    const { client, nodeName } = this.#options;
    const annotations = Object.fromEntries(
      [...changes].map(([tenant, bytes]) => [
        holdingAnnotation(tenant),
        bytes === undefined ? null : String(bytes),
      ]),
    );
    await client.patch(
      NODES,
      { name: nodeName },
      'merge',
      { metadata: { annotations } },
      { signal },
    );
    for (const [tenant, bytes] of changes) {
      if (bytes === undefined) this.#told.delete(tenant);
      else this.#told.set(tenant, bytes);
    }
  }
}
