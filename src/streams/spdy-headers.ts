import { constants, createDeflate, createInflate } from 'node:zlib';
import type { Deflate, Inflate } from 'node:zlib';
import { SpdyProtocolError } from './spdy-frame.ts';
import { SPDY_DICTIONARY } from './spdy-dictionary.ts';

/**
 * Header blocks of SPDY/3: one zlib stream per direction over the whole session, so blocks have
 * to be read and written in the order of their frames. A few bytes can inflate to megabytes;
 * the limits below stop that.
 */
export type SpdyHeaders = Record<string, string>;

const HEADER_BLOCK_BYTES_MAX = 32 * 1024;
const HEADER_COUNT_MAX = 64;

export interface HeaderCodec {
  encode(headers: SpdyHeaders): Promise<Buffer>;
  /** @throws SpdyProtocolError */
  decode(block: Buffer): Promise<SpdyHeaders>;
  close(): void;
}

export function createHeaderCodec(): HeaderCodec {
  // A small window is enough for headers, and a session costs 4 KiB instead of 256.
  const deflate = createDeflate({
    dictionary: SPDY_DICTIONARY,
    flush: constants.Z_SYNC_FLUSH,
    windowBits: 11,
    memLevel: 1,
  });
  const inflate = createInflate({ dictionary: SPDY_DICTIONARY, flush: constants.Z_SYNC_FLUSH });
  return {
    encode: (headers) => transform(deflate, serialize(headers), Number.POSITIVE_INFINITY),
    decode: async (block) => parse(await transform(inflate, block, HEADER_BLOCK_BYTES_MAX)),
    close: () => {
      deflate.destroy();
      inflate.destroy();
    },
  };
}

/** One block through a zlib stream. A failed stream stays failed, as the session must. */
function transform(stream: Deflate | Inflate, block: Buffer, bytesMax: number): Promise<Buffer> {
  if (block.length === 0) return Promise.resolve(Buffer.alloc(0));
  if (stream.destroyed || stream.readableEnded) {
    return Promise.reject(new SpdyProtocolError('header compression has already ended'));
  }
  return new Promise((resolve, reject) => {
    const parts: Buffer[] = [];
    let size = 0;
    const done = () => {
      stream.off('data', onData);
      stream.off('error', onError);
      stream.off('close', onError);
      stream.off('end', onError);
    };
    const onError = (error?: Error) => {
      done();
      stream.on('error', () => {});
      reject(new SpdyProtocolError('header block is not valid', { cause: error }));
    };
    const onData = (part: Buffer) => {
      size += part.length;
      parts.push(part);
      if (size <= bytesMax) return;
      done();
      stream.on('error', () => {});
      stream.destroy();
      reject(new SpdyProtocolError(`header block has more than ${bytesMax} bytes`));
    };
    stream.on('data', onData);
    stream.on('error', onError);
    stream.on('close', onError);
    stream.on('end', onError);
    stream.write(block, (error) => {
      if (error) {
        onError(error);
        return;
      }
      done();
      if (size <= bytesMax) resolve(Buffer.concat(parts));
    });
  });
}

function serialize(headers: SpdyHeaders): Buffer {
  const parts: Buffer[] = [];
  const length = (value: number) => {
    const out = Buffer.alloc(4);
    out.writeUInt32BE(value);
    parts.push(out);
  };
  const entries = Object.entries(headers);
  length(entries.length);
  for (const pair of entries) {
    for (const text of [pair[0].toLowerCase(), pair[1]]) {
      const bytes = Buffer.from(text, 'utf8');
      length(bytes.length);
      parts.push(bytes);
    }
  }
  return Buffer.concat(parts);
}

function parse(block: Buffer): SpdyHeaders {
  const headers: SpdyHeaders = Object.create(null) as SpdyHeaders;
  let offset = 0;
  const take = (count: number): Buffer => {
    if (count > block.length - offset) throw new SpdyProtocolError('header block is cut short');
    offset += count;
    return block.subarray(offset - count, offset);
  };
  const text = () => take(take(4).readUInt32BE(0)).toString('utf8');
  if (block.length === 0) return headers;
  const count = take(4).readUInt32BE(0);
  if (count > HEADER_COUNT_MAX) {
    throw new SpdyProtocolError(`header block has ${count} headers, at most ${HEADER_COUNT_MAX}`);
  }
  for (let index = 0; index < count; index += 1) {
    const name = text().toLowerCase();
    if (name === '' || name in headers) {
      throw new SpdyProtocolError(`header name "${name}" is empty or appears twice`);
    }
    // Several values of one name are separated by NUL; Kubernetes uses the first.
    headers[name] = text().split('\0')[0] ?? '';
  }
  if (offset !== block.length) throw new SpdyProtocolError('header block has bytes after its end');
  return headers;
}
