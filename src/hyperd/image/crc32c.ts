/** CRC-32C (Castagnoli), by table. */
const TABLE = (() => {
  const table = new Uint32Array(256);
  for (let byte = 0; byte < 256; byte++) {
    let value = byte;
    for (let bit = 0; bit < 8; bit++) value = (value >>> 1) ^ (value & 1 ? 0x82f63b78 : 0);
    table[byte] = value >>> 0;
  }
  return table;
})();

/** The register after `bytes`, neither inverted before nor after: callers choose both. */
export function crc32c(bytes: Uint8Array, initial: number): number {
  let value = initial >>> 0;
  for (const byte of bytes) {
    value = ((value >>> 8) ^ (TABLE[(value ^ byte) & 0xff] as number)) >>> 0;
  }
  return value;
}
