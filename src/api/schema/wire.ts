/** Protobuf's wire format: a bounded reader. Every fault is a `SyntaxError` that names the byte. */
export const WIRE = { varint: 0, fixed64: 1, bytes: 2, fixed32: 5 } as const;

const VARINT_BYTES_MAX = 10;
const TWO_32 = 2 ** 32;

export class WireReader {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #at: number;
  #end: number;

  constructor(bytes: Uint8Array, start = 0, end = bytes.length) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#at = start;
    this.#end = end;
  }

  get done(): boolean {
    return this.#at >= this.#end;
  }

  /** Field number and wire type of the next field. */
  tag(): { field: number; wire: number } {
    const at = this.#at;
    const { low, high } = this.#varint();
    const field = low >>> 3;
    if (field === 0 || high !== 0) throw this.#fault('field number is out of range', at);
    return { field, wire: low & 7 };
  }

  /** Two's complement in the lower half, as int32 and enums are read. */
  int32(): number {
    return this.#varint().low | 0;
  }

  /** Exact up to 2^53, the nearest number above. */
  int64(): number {
    const { low, high } = this.#varint();
    return (high | 0) * TWO_32 + low;
  }

  bool(): boolean {
    const { low, high } = this.#varint();
    return low !== 0 || high !== 0;
  }

  double(): number {
    const at = this.#take(8);
    return this.#view.getFloat64(at, true);
  }

  bytes(): Uint8Array {
    const length = this.#length();
    const at = this.#take(length);
    return this.#bytes.subarray(at, at + length);
  }

  /** Throws on invalid UTF-8, which Kubernetes refuses too. */
  string(): string {
    const bytes = this.bytes();
    if (bytes.length === 0) return '';
    try {
      return UTF8.decode(bytes);
    } catch (cause) {
      throw new SyntaxError('protobuf string is not valid UTF-8', { cause });
    }
  }

  skip(wire: number): void {
    if (wire === WIRE.varint) this.#varint();
    else if (wire === WIRE.fixed64) this.#take(8);
    else if (wire === WIRE.bytes) this.#take(this.#length());
    else if (wire === WIRE.fixed32) this.#take(4);
    else throw this.#fault(`wire type ${wire} is not supported`, this.#at);
  }

  #length(): number {
    const { low, high } = this.#varint();
    if (high !== 0) throw this.#fault('length is out of range', this.#at);
    return low;
  }

  #take(length: number): number {
    const at = this.#at;
    if (length > this.#end - at) throw this.#fault('message is truncated', at);
    this.#at = at + length;
    return at;
  }

  #varint(): { low: number; high: number } {
    let low = 0;
    let high = 0;
    for (let index = 0; index < VARINT_BYTES_MAX; index += 1) {
      const byte = this.#bytes[this.#take(1)] ?? 0;
      const bits = byte & 127;
      if (index < 4) low |= bits << (7 * index);
      else if (index === 4) {
        low |= bits << 28;
        high |= bits >>> 4;
      } else high |= bits << (7 * index - 32);
      if (byte < 128) return { low: low >>> 0, high: high >>> 0 };
    }
    throw this.#fault('varint is longer than 10 bytes', this.#at);
  }

  #fault(what: string, at: number): SyntaxError {
    return new SyntaxError(`protobuf ${what} at byte ${at}`);
  }
}

const UTF8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
