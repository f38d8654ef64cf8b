/**
 * ASN.1 in distinguished encoding (X.690), as far as certificates and certificate requests need
 * it. Reading is strict: definite minimal lengths, no trailing bytes, bounded size and depth,
 * because certificate requests come from strangers.
 */
export const TAG = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  null: 0x05,
  oid: 0x06,
  utf8String: 0x0c,
  printableString: 0x13,
  teletexString: 0x14,
  ia5String: 0x16,
  utcTime: 0x17,
  generalizedTime: 0x18,
  sequence: 0x30,
  set: 0x31,
} as const;

/** One element; the parts are its content, one after the other. */
export function encode(tag: number, ...parts: Uint8Array[]): Buffer {
  const content = Buffer.concat(parts);
  const size = content.length;
  if (size < 0x80) return Buffer.concat([Buffer.from([tag, size]), content]);
  const digits: number[] = [];
  for (let rest = size; rest > 0; rest = Math.floor(rest / 256)) digits.unshift(rest % 256);
  return Buffer.concat([Buffer.from([tag, 0x80 | digits.length, ...digits]), content]);
}

export const sequence = (...parts: Uint8Array[]): Buffer => encode(TAG.sequence, ...parts);
export const set = (...parts: Uint8Array[]): Buffer => encode(TAG.set, ...parts);
export const octetString = (value: Uint8Array): Buffer => encode(TAG.octetString, value);
export const boolean = (value: boolean): Buffer =>
  encode(TAG.boolean, Buffer.from([value ? 0xff : 0]));

/** Constructed context tag, as `[n] EXPLICIT` or an implicit SEQUENCE is written. */
export const context = (number: number, ...parts: Uint8Array[]): Buffer =>
  encode(0xa0 | number, ...parts);

/** Primitive context tag, as `[n] IMPLICIT` strings are written. */
export const contextPrimitive = (number: number, value: Uint8Array): Buffer =>
  encode(0x80 | number, value);

/** A non-negative integer given by its big-endian magnitude. */
export function integer(magnitude: Uint8Array): Buffer {
  let start = 0;
  while (start < magnitude.length - 1 && magnitude[start] === 0) start += 1;
  const digits = Buffer.from(magnitude.subarray(start));
  const needsSignByte = digits.length === 0 || (digits[0] ?? 0) >= 0x80;
  return encode(TAG.integer, needsSignByte ? Buffer.concat([Buffer.from([0]), digits]) : digits);
}

export function bitString(value: Uint8Array, unusedBits = 0): Buffer {
  return encode(TAG.bitString, Buffer.from([unusedBits]), value);
}

export function utf8String(value: string): Buffer {
  return encode(TAG.utf8String, Buffer.from(value, 'utf8'));
}

/** @param dotted such as `2.5.4.3` */
export function oid(dotted: string): Buffer {
  const [first = 0, second = 0, ...rest] = dotted.split('.').map(Number);
  const bytes: number[] = [];
  for (const arc of [first * 40 + second, ...rest]) {
    const digits = [arc & 0x7f];
    for (let high = Math.floor(arc / 128); high > 0; high = Math.floor(high / 128)) {
      digits.unshift((high & 0x7f) | 0x80);
    }
    bytes.push(...digits);
  }
  return encode(TAG.oid, Buffer.from(bytes));
}

/** RFC 5280, 4.1.2.5: UTCTime through 2049, GeneralizedTime after. */
export function time(ms: number): Buffer {
  const digits = new Date(ms).toISOString().replace(/[-:T]/g, '').slice(0, 14);
  const year = Number(digits.slice(0, 4));
  return year < 2050
    ? encode(TAG.utcTime, Buffer.from(`${digits.slice(2)}Z`))
    : encode(TAG.generalizedTime, Buffer.from(`${digits}Z`));
}

/** An element that was read. `raw` includes its header. */
export interface DerElement {
  tag: number;
  content: Buffer;
  raw: Buffer;
}

export class DerError extends Error {
  override name = 'DerError';
}

/** Reads one element at `offset`. */
function readAt(bytes: Buffer, offset: number): DerElement {
  const tag = bytes[offset];
  const lead = bytes[offset + 1];
  if (tag === undefined || lead === undefined) throw new DerError('Cannot read DER: it is cut off');
  if ((tag & 0x1f) === 0x1f) throw new DerError('Cannot read DER: multi-byte tags are not allowed');
  let size = lead;
  let start = offset + 2;
  if (lead >= 0x80) {
    const count = lead & 0x7f;
    if (count === 0 || count > 3) throw new DerError('Cannot read DER: length form is not allowed');
    if (start + count > bytes.length) throw new DerError('Cannot read DER: it is cut off');
    size = bytes.readUIntBE(start, count);
    if (size < 0x80 || size < 2 ** (8 * (count - 1))) {
      throw new DerError('Cannot read DER: length is not minimal');
    }
    start += count;
  }
  const end = start + size;
  if (end > bytes.length) throw new DerError('Cannot read DER: it is cut off');
  return { tag, content: bytes.subarray(start, end), raw: bytes.subarray(offset, end) };
}

/** Reads exactly one element that fills `bytes`. */
export function readOne(bytes: Uint8Array, tag?: number): DerElement {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const element = readAt(buffer, 0);
  if (element.raw.length !== buffer.length) throw new DerError('Cannot read DER: trailing bytes');
  if (tag !== undefined) expectTag(element, tag);
  return element;
}

/** The elements inside a constructed one. */
export function readChildren(parent: DerElement, tag?: number): DerElement[] {
  if (tag !== undefined) expectTag(parent, tag);
  const children: DerElement[] = [];
  let offset = 0;
  while (offset < parent.content.length) {
    const child = readAt(parent.content, offset);
    children.push(child);
    offset += child.raw.length;
  }
  return children;
}

/** The element itself. @throws DerError where there is none or it has another tag */
export function expectTag(element: DerElement | undefined, tag: number): DerElement {
  if (element?.tag !== tag) {
    const found = element ? `0x${element.tag.toString(16)}` : 'nothing';
    throw new DerError(`Cannot read DER: tag is ${found}, want 0x${tag.toString(16)}`);
  }
  return element;
}

/** An object identifier as dotted text. @throws DerError */
export function readOid(element: DerElement | undefined): string {
  const { content } = expectTag(element, TAG.oid);
  const arcs: number[] = [];
  let arc = 0;
  for (const byte of content) {
    arc = arc * 128 + (byte & 0x7f);
    if (arc > Number.MAX_SAFE_INTEGER / 128)
      throw new DerError('Cannot read DER: OID is too large');
    if (byte < 0x80) {
      arcs.push(arc);
      arc = 0;
    }
  }
  const [head, ...rest] = arcs;
  if (head === undefined || (content.at(-1) ?? 0x80) >= 0x80) {
    throw new DerError('Cannot read DER: OID is cut off');
  }
  const first = Math.min(2, Math.floor(head / 40));
  return [first, head - first * 40, ...rest].join('.');
}

/** Text of any of the string types that names use. */
export function readString(element: DerElement | undefined): string {
  switch (element?.tag) {
    case TAG.utf8String:
      try {
        return new TextDecoder('utf-8', { fatal: true }).decode(element.content);
      } catch (cause) {
        throw new DerError('Cannot read DER: string is not UTF-8', { cause });
      }
    case TAG.printableString:
    case TAG.ia5String:
      return element.content.toString('latin1');
    default:
      throw new DerError('Cannot read DER: string type is not supported');
  }
}

/** The bytes of a bit string without unused bits. */
export function readBitString(element: DerElement | undefined): Buffer {
  const { content } = expectTag(element, TAG.bitString);
  if (content[0] !== 0) throw new DerError('Cannot read DER: bit string is not of whole bytes');
  return content.subarray(1);
}
