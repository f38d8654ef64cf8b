import type { KubeObject } from '../api/object.ts';
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
    const shown = JSON.stringify(value.slice(0, 80));
    if (value.length === 0 && part !== 'namespace') {
      throw new InvalidKeyError(`Cannot store ${JSON.stringify(key)}: its ${part} is empty`);
    }
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
  #object: KubeObject | undefined;
  #loose: WeakRef<KubeObject> | true | undefined;

  constructor(
    key: Key,
    revision: number,
    createRevision: number,
    bytes: Uint8Array,
    object?: KubeObject,
  ) {
    this.key = key;
    this.revision = revision;
    this.createRevision = createRevision;
    this.bytes = bytes;
    this.#object = object;
  }

  get object(): KubeObject {
    const loose = this.#loose instanceof WeakRef ? this.#loose.deref() : undefined;
    const known = this.#object ?? loose;
    if (known) return known;
    const object = JSON.parse(textOf(this.bytes)) as KubeObject;
    if (this.#loose) this.#loose = new WeakRef(object);
    else this.#object = object;
    return object;
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
  key: Key,
  object: KubeObject,
  revision: number,
  createRevision: number,
): StoredEntry {
  const metadata = { ...object.metadata, resourceVersion: String(revision) };
  const stored = { ...object, metadata };
  const text = JSON.stringify(stored);
  const bytes = Buffer.allocUnsafeSlow(Buffer.byteLength(text));
  bytes.write(text);
  return new StoredEntry(key, revision, createRevision, bytes, stored);
}

function textOf(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8');
}
