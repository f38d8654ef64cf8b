import type { KubeObject } from '../api/object.ts';
import { assert } from '../base/assert.ts';
import { InvalidKeyError } from './store.ts';
import type { Entry, Key } from './store.ts';

/** Longest part of a key. Kubernetes' names end at 253; resources add a group of that length. */
const KEY_PART_LENGTH_MAX = 512;

/** Sorts by namespace, then name; NUL sorts below every character a name can have. */
const SEPARATOR = '\0';

/** The key's place among those of its resource, as a string. */
export function entryId(namespace: string, name: string): string {
  return namespace + SEPARATOR + name;
}

export interface IdRange {
  /** Inclusive. */
  from: string;
  /** Exclusive; undefined is the end. */
  to: string | undefined;
}

/** The ids of one namespace, or of all, that lie after `after`. */
export function idRange(
  namespace: string | undefined,
  after: { namespace: string; name: string } | undefined,
): IdRange {
  const from = namespace === undefined ? '' : namespace + SEPARATOR;
  // A string with NUL appended is the very next one in order.
  const next = after ? entryId(after.namespace, after.name) + SEPARATOR : '';
  const to = namespace === undefined ? undefined : `${namespace}\x01`;
  // A place beyond the namespace leaves nothing of it.
  if (to !== undefined && next > to) return { from: to, to };
  return { from: next > from ? next : from, to };
}

/** @throws InvalidKeyError for a key under which nothing can be stored */
export function checkKey(key: Key): void {
  for (const part of ['resource', 'namespace', 'name'] as const) {
    const value = key[part];
    if (value.length === 0 && part !== 'namespace') {
      throw new InvalidKeyError(`Cannot store ${JSON.stringify(key)}: its ${part} is empty`);
    }
    checkPart(part, value);
  }
}

/** @throws InvalidKeyError for a partition that cannot be stored */
export function checkPartition(partition: string): void {
  checkPart('partition', partition);
}

function checkPart(part: string, value: string): void {
  const shown = JSON.stringify(value.slice(0, 80));
  if (value.length > KEY_PART_LENGTH_MAX) {
    const limit = `the limit is ${KEY_PART_LENGTH_MAX} characters`;
    const length = `it has ${value.length}`;
    throw new InvalidKeyError(`Cannot store ${part} ${shown}…: ${length}, ${limit}`);
  }
  if (value.includes(SEPARATOR) || !value.isWellFormed()) {
    const reason = 'it contains a NUL character or half a surrogate pair';
    throw new InvalidKeyError(`Cannot store ${part} ${shown}: ${reason}`);
  }
}

export interface EntryContent {
  key: Key;
  revision: number;
  createRevision: number;
  /** Undefined: not decided yet. */
  partition: string | undefined;
  bytes: Uint8Array;
  /** What `bytes` say, if that is known. */
  object?: KubeObject;
}

/**
 * One version of one object. The parsed form is made when it is first asked for, and kept as long
 * as the version is current: most objects read from disk, and most superseded ones, are never
 * looked at, and parsed they take several times the memory of their bytes.
 */
export class StoredEntry implements Entry {
  readonly key: Key;
  readonly revision: number;
  readonly createRevision: number;
  readonly bytes: Uint8Array;
  #partition: string | undefined;
  #object: KubeObject | undefined;
  #loose: WeakRef<KubeObject> | true | undefined;

  constructor(content: EntryContent) {
    this.key = content.key;
    this.revision = content.revision;
    this.createRevision = content.createRevision;
    this.bytes = content.bytes;
    this.#partition = content.partition;
    this.#object = content.object;
  }

  get partition(): string {
    assert(this.#partition !== undefined, 'the partition of an entry is decided before it is read');
    return this.#partition;
  }

  /** Not so for one read from a file of before there were partitions. */
  get hasPartition(): boolean {
    return this.#partition !== undefined;
  }

  /** Decides the partition of an entry that has none. */
  assign(partition: string): void {
    this.#partition = partition;
  }

  get object(): KubeObject {
    const loose = this.#loose instanceof WeakRef ? this.#loose.deref() : undefined;
    const known = this.#object ?? loose;
    if (known) return known;
    const object = this.parse();
    if (this.#loose) this.#loose = new WeakRef(object);
    else this.#object = object;
    return object;
  }

  /** The object, as a copy of the caller's own. */
  parse(): KubeObject {
    return JSON.parse(textOf(this.bytes)) as KubeObject;
  }

  /** From now on the parsed form stays only as long as somebody else uses it. */
  loosen(): void {
    this.#loose = this.#object ? new WeakRef(this.#object) : true;
    this.#object = undefined;
  }
}

/** A copy with memory of its own: a part of a larger block would keep all of that block alive. */
export function ownBytes(bytes: Uint8Array): Uint8Array {
  const own = Buffer.allocUnsafeSlow(bytes.length);
  own.set(bytes);
  return own;
}

/** The version of `object` that is written at `revision`, which it then carries. */
export function encodeEntry(
  object: KubeObject,
  identity: Omit<EntryContent, 'bytes' | 'object'>,
): StoredEntry {
  const metadata = { ...object.metadata, resourceVersion: String(identity.revision) };
  const stored = { ...object, metadata };
  const text = JSON.stringify(stored);
  const bytes = Buffer.allocUnsafeSlow(Buffer.byteLength(text));
  bytes.write(text);
  return new StoredEntry({ ...identity, bytes, object: stored });
}

function textOf(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8');
}
