import type { KubeObject } from '../../api/object.ts';
import { SUB_TENANTS, amountsFrom, amountsOf } from '../../api/tenant-quota.ts';
import { resourcesOfTenantQuota, usageFrom } from '../../api/tenant-quota.ts';
import type { Amounts } from '../../api/tenant-quota.ts';
import type { Usage } from '../../api/quota.ts';
import type { Tenant } from '../../api/tenancy.ts';
import type { Key, Store } from '../../store/store.ts';
import type { ObjectIndex } from '../server/follower.ts';
import { TENANTS_RESOURCE } from './directory.ts';

/**
 * What each tenant uses of its quota: counted once for each object when it changes, so that the
 * question whether one more fits costs the same however many there are.
 *
 *   own        what the tenant's objects use
 *   granted    what its sub-tenants have been given: their limit where they have one, or what they
 *              use where that is more or is not limited
 *   committed  own + granted; has to stay within the tenant's limit
 *   total      what it and all below it use: a limit that was set below what had been granted
 *              before holds for that too
 *
 * A write in flight has what it will use set aside until it is settled: an object counts with the
 * most that it has or may be about to have. Nobody else can take what is set aside, and what a
 * failed write had set aside is free again.
 */
export interface QuotaLedger {
  /** Whether the tenant, or one above it, has any limits. */
  isLimited(tenant: string): boolean;
  /**
   * Sets aside, for this write, what the object will use.
   *
   * @returns what does not fit; then nothing is set aside
   */
  reserve(write: object, tenant: string, key: Key, object: KubeObject): Excess | undefined;
  /** The same for a tenant below another one: its place, and what it is given. */
  reserveTenant(write: object, tenant: Tenant): Excess | undefined;
  /** The write is stored or has failed. Writes that nothing was set aside for are fine. */
  settle(write: object): void;
  /** What the tenant and those below it use of what the limits name. */
  measure(tenant: string, hard: Usage): Usage;
  /** Follows the store, from now until the signal aborts. */
  start(follow: (resource: string, index: ObjectIndex) => void): void;
  /** Called with the name of each tenant whose use of its quota has changed. */
  onChange: (tenant: string) => void;
}

export interface Excess {
  /** The tenant whose limit it is. */
  tenant: string;
  requested: Usage;
  used: Usage;
  limited: Usage;
}

interface Charge {
  key: Key;
  stored: Amounts | undefined;
  pending: Map<object, KubeObject>;
  /** For each name the most of all of them. */
  counted: Amounts;
}

interface Account {
  name: string;
  parent: string | undefined;
  /** What the account was made from last. */
  seen: string;
  hardText: Usage;
  hard: Amounts;
  /** Limits that it is about to have. */
  pendingHard: Map<object, Amounts>;
  children: Set<string>;
  /** Its own limits' and those of all above it: what is counted. */
  names: Set<string>;
  own: Amounts;
  granted: Amounts;
  total: Amounts;
  /** How much of its parent's `granted` is for it. */
  passedOn: Amounts;
  charges: Map<string, Charge>;
}

interface Reservation {
  account: string;
  id: string | undefined;
}

/** @param isServed whether the store's resource exists: what does not is never followed */
export function createQuotaLedger(
  store: Store,
  isServed: (resource: string) => boolean,
): QuotaLedger {
  return new Ledger(store, isServed);
}

class Ledger implements QuotaLedger {
  onChange: (tenant: string) => void = () => {};
  readonly #store: Store;
  readonly #isServed: (resource: string) => boolean;
  readonly #accounts = new Map<string, Account>();
  readonly #reservations = new Map<object, Reservation[]>();
  /** In whose account an object of the store is counted. */
  readonly #owners = new Map<string, string>();
  readonly #followed = new Set<string>();
  #follow: ((resource: string, index: ObjectIndex) => void) | undefined;

  constructor(store: Store, isServed: (resource: string) => boolean) {
    this.#store = store;
    this.#isServed = isServed;
  }

  start(follow: (resource: string, index: ObjectIndex) => void): void {
    this.#follow = follow;
    const sync = ({ metadata }: KubeObject) => this.#syncTenant(metadata.name ?? '');
    follow(TENANTS_RESOURCE, { set: sync, delete: sync });
    for (const { names } of this.#accounts.values()) this.#followAll(names);
  }

  isLimited(tenant: string): boolean {
    return (this.#accounts.get(tenant)?.names.size ?? 0) > 0;
  }

  reserve(write: object, tenant: string, key: Key, object: KubeObject): Excess | undefined {
    const account = this.#accounts.get(tenant);
    if (!account || account.names.size === 0) return undefined;
    return this.#attempt(write, account, () => this.#setAside(write, account, key, object));
  }

  reserveTenant(write: object, tenant: Tenant): Excess | undefined {
    const { metadata, spec } = tenant;
    const parent = spec.parent === undefined ? undefined : this.#accounts.get(spec.parent);
    if (!parent || parent.names.size === 0) return undefined;
    const name = metadata.name ?? '';
    return this.#attempt(write, parent, () => {
      const account = this.#account(name);
      this.#setParent(account, spec.parent);
      this.#setAside(write, parent, keyOfTenant(name), tenant);
      account.pendingHard.set(write, amountsFrom(spec.quota?.hard));
      this.#note(write, { account: name, id: undefined });
      this.#renewNames(account);
      this.#passOn(account);
    });
  }

  settle(write: object): void {
    const reservations = this.#reservations.get(write);
    if (!reservations) return;
    this.#reservations.delete(write);
    for (const { account: name, id } of reservations) {
      const account = this.#accounts.get(name);
      if (!account) continue;
      const charge = id === undefined ? undefined : account.charges.get(id);
      if (charge) {
        charge.pending.delete(write);
        // What was stored is counted in the same step in which what was set aside is let go.
        this.#syncObject(charge.key);
        this.#recount(account, charge);
      } else {
        account.pendingHard.delete(write);
        this.#syncTenant(name);
        this.#passOn(account);
      }
    }
  }

  measure(tenant: string, hard: Usage): Usage {
    const account = this.#accounts.get(tenant);
    const names = Object.keys(hard);
    if (account && names.every((name) => account.names.has(name))) {
      return usageFrom(this.#committed(account, names), hard);
    }
    const sum: Amounts = new Map(names.map((name) => [name, 0n]));
    for (const resource of new Set(names.flatMap(resourcesOfTenantQuota))) {
      for (const { object } of this.#store.list(resource, { partition: tenant }).entries) {
        for (const [name, amount] of amountsOf(resource, object, names)) add(sum, name, amount);
      }
    }
    return usageFrom(sum, hard);
  }

  // --- Setting aside ---------------------------------------------------------------------------

  /** Does what `set` says and takes it back if that breaks a limit that it made worse. */
  #attempt(write: object, account: Account, set: () => void): Excess | undefined {
    this.settle(write);
    const chain = this.#chain(account);
    const measures = chain.flatMap((each) => [
      () => ({ each, amounts: this.#committed(each, each.hard.keys()) }),
      () => ({ each, amounts: new Map(each.total) }),
    ]);
    const before = measures.map((measure) => measure().amounts);
    set();
    for (const [index, measure] of measures.entries()) {
      const { each, amounts } = measure();
      const was = (name: string) => before[index]?.get(name) ?? 0n;
      const is = (name: string) => amounts.get(name) ?? 0n;
      const limit = (name: string) => each.hard.get(name) ?? 0n;
      const isBroken = (name: string) => is(name) > limit(name) && is(name) > was(name);
      const broken = [...each.hard.keys()].filter(isBroken);
      if (broken.length === 0) continue;
      this.settle(write);
      const only = (amount: (name: string) => bigint) =>
        usageFrom(new Map(broken.map((name) => [name, amount(name)])), each.hardText);
      const requested = only((name) => is(name) - was(name));
      return { tenant: each.name, requested, used: only(was), limited: only(limit) };
    }
    return undefined;
  }

  #setAside(write: object, account: Account, key: Key, object: KubeObject): void {
    const id = idOf(key);
    const charge = this.#charge(account, key);
    charge.pending.set(write, object);
    this.#note(write, { account: account.name, id });
    this.#recount(account, charge);
  }

  #note(write: object, reservation: Reservation): void {
    const known = this.#reservations.get(write);
    if (known) known.push(reservation);
    else this.#reservations.set(write, [reservation]);
  }

  // --- Counting --------------------------------------------------------------------------------

  #charge(account: Account, key: Key): Charge {
    const id = idOf(key);
    let charge = account.charges.get(id);
    if (!charge) {
      charge = { key, stored: undefined, pending: new Map(), counted: new Map() };
      account.charges.set(id, charge);
    }
    return charge;
  }

  /** Counts the object of the store as it is now, for whose it is now. */
  #syncObject(key: Key): void {
    const id = idOf(key);
    const entry = this.#store.get(key);
    const owner = entry && key.resource === TENANTS_RESOURCE ? parentOf(entry.object) : undefined;
    const tenant = entry ? (owner ?? entry.partition) : undefined;
    const before = this.#owners.get(id);
    if (before !== undefined && before !== tenant) this.#count(before, key, undefined);
    if (tenant === undefined || !entry || !this.isLimited(tenant)) return;
    this.#count(tenant, key, entry.object);
  }

  #count(tenant: string, key: Key, object: KubeObject | undefined): void {
    const account = this.#accounts.get(tenant);
    const id = idOf(key);
    if (object) this.#owners.set(id, tenant);
    else this.#owners.delete(id);
    if (!account) return;
    const charge = this.#charge(account, key);
    charge.stored = object && this.#amounts(account, key, object);
    this.#recount(account, charge);
  }

  #amounts(account: Account, key: Key, object: KubeObject): Amounts {
    if (key.resource !== TENANTS_RESOURCE) return amountsOf(key.resource, object, account.names);
    return account.names.has(SUB_TENANTS) ? amountsFrom({ [SUB_TENANTS]: '1' }) : new Map();
  }

  #recount(account: Account, charge: Charge): void {
    const counted: Amounts = new Map(charge.stored);
    for (const object of charge.pending.values()) {
      for (const [name, amount] of this.#amounts(account, charge.key, object)) {
        if (amount > (counted.get(name) ?? 0n)) counted.set(name, amount);
      }
    }
    for (const [name, amount] of charge.counted) this.#addOwn(account, name, -amount);
    for (const [name, amount] of counted) this.#addOwn(account, name, amount);
    charge.counted = counted;
    if (!charge.stored && charge.pending.size === 0) account.charges.delete(idOf(charge.key));
    this.onChange(account.name);
    this.#passOn(account);
  }

  #addOwn(account: Account, name: string, amount: bigint): void {
    add(account.own, name, amount);
    for (const each of this.#chain(account)) add(each.total, name, amount);
  }

  #grant(account: Account, name: string): bigint {
    let most = (account.own.get(name) ?? 0n) + (account.granted.get(name) ?? 0n);
    for (const hard of [account.hard, ...account.pendingHard.values()]) {
      const limit = hard.get(name) ?? 0n;
      if (limit > most) most = limit;
    }
    return most;
  }

  #committed(account: Account, names: Iterable<string>): Amounts {
    const amounts: Amounts = new Map();
    for (const name of names) {
      const amount = (account.own.get(name) ?? 0n) + (account.granted.get(name) ?? 0n);
      amounts.set(name, amount);
    }
    return amounts;
  }

  /** Brings what all above it have granted up to date. */
  #passOn(account: Account): void {
    const parent = account.parent === undefined ? undefined : this.#accounts.get(account.parent);
    if (!parent) return;
    let isChanged = false;
    for (const name of parent.names) {
      const now = this.#grant(account, name);
      const was = account.passedOn.get(name) ?? 0n;
      if (now === was) continue;
      account.passedOn.set(name, now);
      add(parent.granted, name, now - was);
      isChanged = true;
    }
    if (!isChanged) return;
    this.onChange(parent.name);
    this.#passOn(parent);
  }

  // --- Tenants ---------------------------------------------------------------------------------

  #account(name: string): Account {
    let account = this.#accounts.get(name);
    if (!account) {
      account = {
        ...{ name, parent: undefined, seen: '', hardText: {}, hard: new Map() },
        ...{ pendingHard: new Map(), children: new Set(), names: new Set() },
        ...{ own: new Map(), granted: new Map(), total: new Map() },
        ...{ passedOn: new Map(), charges: new Map() },
      };
      this.#accounts.set(name, account);
    }
    return account;
  }

  #chain(account: Account): Account[] {
    const chain = [account];
    for (let next = account.parent; next !== undefined;) {
      const above = this.#accounts.get(next);
      if (!above || chain.includes(above)) break;
      chain.push(above);
      next = above.parent;
    }
    return chain;
  }

  #syncTenant(name: string): void {
    const key = keyOfTenant(name);
    const tenant = this.#store.get(key)?.object as Tenant | undefined;
    const account = this.#account(name);
    const { parent, quota } = tenant?.spec ?? {};
    const seen = JSON.stringify([tenant !== undefined, parent, quota?.hard]);
    if (seen !== account.seen) {
      account.seen = seen;
      account.hardText = quota?.hard ?? {};
      account.hard = amountsFrom(account.hardText);
      this.#setParent(account, account.pendingHard.size > 0 ? (parent ?? account.parent) : parent);
      this.#syncObject(key);
      this.#renewNames(account);
      this.#passOn(account);
      this.onChange(name);
    }
    const isNeeded = tenant || account.pendingHard.size > 0 || account.children.size > 0;
    if (!isNeeded && account.charges.size === 0) this.#accounts.delete(name);
  }

  #setParent(account: Account, parent: string | undefined): void {
    if (account.parent === parent) return;
    const old = account.parent === undefined ? undefined : this.#accounts.get(account.parent);
    if (old) {
      old.children.delete(account.name);
      for (const [name, amount] of account.passedOn) add(old.granted, name, -amount);
      for (const each of this.#chain(old)) addAll(each.total, account.total, -1n);
      this.onChange(old.name);
      this.#passOn(old);
    }
    account.passedOn.clear();
    account.parent = parent;
    if (parent === undefined) return;
    this.#account(parent).children.add(account.name);
    for (const each of this.#chain(this.#account(parent))) addAll(each.total, account.total, 1n);
  }

  /** What is counted follows from the limits of the tenant and of those above it. */
  #renewNames(account: Account): void {
    const above = account.parent === undefined ? undefined : this.#accounts.get(account.parent);
    const names = new Set([...account.hard.keys(), ...(above?.names ?? [])]);
    const isSame = names.size === account.names.size && names.isSubsetOf(account.names);
    if (isSame) return;
    account.names = names;
    this.#followAll(names);
    this.#countAnew(account);
    for (const child of account.children) {
      const below = this.#account(child);
      this.#renewNames(below);
      this.#passOn(below);
    }
  }

  #countAnew(account: Account): void {
    for (const [name, amount] of [...account.own]) this.#addOwn(account, name, -amount);
    for (const charge of account.charges.values()) {
      charge.stored = undefined;
      charge.counted = new Map();
    }
    for (const resource of new Set([...account.names].flatMap(resourcesOfTenantQuota))) {
      const { entries } = this.#store.list(resource, { partition: account.name });
      for (const { key, object } of entries) this.#count(account.name, key, object);
    }
    for (const child of account.children) this.#syncObject(keyOfTenant(child));
    for (const charge of [...account.charges.values()]) {
      if (charge.counted.size === 0) this.#recount(account, charge);
    }
  }

  #followAll(names: Iterable<string>): void {
    for (const resource of new Set([...names].flatMap(resourcesOfTenantQuota))) {
      if (!this.#follow || this.#followed.has(resource) || !this.#isServed(resource)) continue;
      this.#followed.add(resource);
      const sync = ({ metadata: { namespace = '', name = '' } }: KubeObject) =>
        this.#syncObject({ resource, namespace, name });
      this.#follow(resource, { set: sync, delete: sync });
    }
  }
}

const parentOf = (object: KubeObject) => (object as Tenant).spec.parent ?? '';

const keyOfTenant = (name: string): Key => ({ resource: TENANTS_RESOURCE, namespace: '', name });

const idOf = ({ resource, namespace, name }: Key) => `${resource}\0${namespace}\0${name}`;

function addAll(amounts: Amounts, others: Amounts, sign: bigint): void {
  for (const [name, amount] of others) add(amounts, name, sign * amount);
}

function add(amounts: Amounts, name: string, amount: bigint): void {
  const sum = (amounts.get(name) ?? 0n) + amount;
  if (sum === 0n) amounts.delete(name);
  else amounts.set(name, sum);
}
