import { assert } from '../../base/assert.ts';
import type { TarType } from './tar.ts';

/** What a layer archive is made of. Numbers that are left out are 0. */
export interface TarMember {
  /** Relative to the image's root. */
  path: string;
  type: TarType;
  /** @default 0o755 for directories, 0o644 for others */
  mode?: number | undefined;
  uid?: number | undefined;
  gid?: number | undefined;
  /** Seconds since the epoch. */
  mtimeSec?: number | undefined;
  content?: Uint8Array;
  /** Of links of both kinds. */
  linkName?: string;
  deviceMajor?: number;
  deviceMinor?: number;
  xattrs?: Record<string, Uint8Array> | undefined;
}

const BLOCK_BYTES = 512;
const TYPE_FLAG: Record<TarType, string> = {
  file: '0',
  link: '1',
  symlink: '2',
  char: '3',
  block: '4',
  directory: '5',
  fifo: '6',
};
/** The largest number in an octal field of 12 characters, and of 8. */
const OCTAL12_MAX = 0o77777777777;
const OCTAL8_MAX = 0o7777777;

/** A tar archive (ustar, with pax headers where they are needed), byte for byte reproducible. */
export function writeTar(members: Iterable<TarMember>): Buffer {
  const chunks: Buffer[] = [];
  for (const member of members) appendMember(chunks, member);
  chunks.push(Buffer.alloc(2 * BLOCK_BYTES));
  return Buffer.concat(chunks);
}

function appendMember(chunks: Buffer[], member: TarMember): void {
  const isDirectory = member.type === 'directory';
  const path = isDirectory && !member.path.endsWith('/') ? `${member.path}/` : member.path;
  const content = member.content ?? new Uint8Array();
  assert(content.length === 0 || member.type === 'file', 'tar: only files have content');
  const records = paxRecords(member, path, content.length);
  if (records.length > 0) {
    chunks.push(header({ path: 'pax', type: 'file' }, 'pax', 'x', records.length));
    appendBody(chunks, records);
  }
  chunks.push(header(member, path, TYPE_FLAG[member.type], content.length));
  appendBody(chunks, content);
}

function appendBody(chunks: Buffer[], body: Uint8Array): void {
  chunks.push(Buffer.from(body.buffer, body.byteOffset, body.byteLength));
  const rest = body.length % BLOCK_BYTES;
  if (rest > 0) chunks.push(Buffer.alloc(BLOCK_BYTES - rest));
}

function paxRecords(member: TarMember, path: string, size: number): Buffer {
  const records: Buffer[] = [];
  const add = (key: string, value: Uint8Array | string): void => {
    const tail = Buffer.concat([
      Buffer.from(` ${key}=`),
      Buffer.from(value as string),
      Buffer.from('\n'),
    ]);
    let length = tail.length + 1;
    while (String(length).length + tail.length !== length)
      length = String(length).length + tail.length;
    records.push(Buffer.from(String(length)), tail);
  };
  const isPlain = (text: string) => Buffer.byteLength(text) <= 100 && /^[\x20-\x7e]*$/.test(text);
  if (!isPlain(path)) add('path', path);
  if (!isPlain(member.linkName ?? '')) add('linkpath', member.linkName ?? '');
  if (size > OCTAL12_MAX) add('size', String(size));
  if ((member.uid ?? 0) > OCTAL8_MAX) add('uid', String(member.uid));
  if ((member.gid ?? 0) > OCTAL8_MAX) add('gid', String(member.gid));
  for (const name of Object.keys(member.xattrs ?? {}).sort()) {
    add(`SCHILY.xattr.${name}`, member.xattrs?.[name] as Uint8Array);
  }
  return Buffer.concat(records);
}

function header(member: TarMember, path: string, flag: string, size: number): Buffer {
  const out = Buffer.alloc(BLOCK_BYTES);
  const octal = (value: number, at: number, length: number, max: number) =>
    out.write((value > max ? 0 : value).toString(8).padStart(length - 1, '0'), at, 'latin1');
  out.write(path, 0, 100, 'utf8');
  octal(member.mode ?? (member.type === 'directory' ? 0o755 : 0o644), 100, 8, OCTAL8_MAX);
  octal(member.uid ?? 0, 108, 8, OCTAL8_MAX);
  octal(member.gid ?? 0, 116, 8, OCTAL8_MAX);
  octal(size, 124, 12, OCTAL12_MAX);
  octal(member.mtimeSec ?? 0, 136, 12, OCTAL12_MAX);
  out.write('        ', 148, 'latin1');
  out.write(flag, 156, 'latin1');
  out.write(member.linkName ?? '', 157, 100, 'utf8');
  out.write('ustar\x0000', 257, 'latin1');
  octal(member.deviceMajor ?? 0, 329, 8, OCTAL8_MAX);
  octal(member.deviceMinor ?? 0, 337, 8, OCTAL8_MAX);
  const sum = out.reduce((total, byte) => total + byte, 0);
  out.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return out;
}

/** Before the content of a file of an archive that is written piece by piece. */
export function tarFileHeader(path: string, size: number): Buffer {
  return header({ path, type: 'file' }, path, TYPE_FLAG.file, size);
}

/** After the content of such a file. */
export function tarPadding(size: number): Buffer {
  const rest = size % BLOCK_BYTES;
  return Buffer.alloc(rest > 0 ? BLOCK_BYTES - rest : 0);
}

/** The end of an archive. */
export const TAR_END = Buffer.alloc(2 * BLOCK_BYTES);
