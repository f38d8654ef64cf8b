/** One row of the table `write`. */
export interface Row {
  revision: number;
  resource: string;
  namespace: string;
  name: string;
  createRevision: number;
  timeMs: number;
  deleted: boolean;
  /** Undefined in a row of format 1, as long as it is not decided. */
  partition: string | undefined;
  value: Uint8Array;
}

/**
 * Many rows, packed column by column: threads exchange one block of memory and a few flat arrays
 * instead of thousands of objects.
 */
export interface RowBlock {
  count: number;
  revisions: Float64Array;
  createRevisions: Float64Array;
  timesMs: Float64Array;
  deleted: Uint8Array;
  /** Resource, namespace and name of each row in turn. */
  keys: string[];
  partitions: (string | undefined)[];
  lengths: Uint32Array;
  /** The values one behind the other. Owns its memory, which may be transferred. */
  values: Uint8Array<ArrayBuffer>;
}

export function packRows(rows: Row[]): RowBlock {
  const lengths = Uint32Array.from(rows, ({ value }) => value.length);
  const values = new Uint8Array(lengths.reduce((sum, length) => sum + length, 0));
  let offset = 0;
  for (const { value } of rows) {
    values.set(value, offset);
    offset += value.length;
  }
  return {
    count: rows.length,
    revisions: Float64Array.from(rows, ({ revision }) => revision),
    createRevisions: Float64Array.from(rows, ({ createRevision }) => createRevision),
    timesMs: Float64Array.from(rows, ({ timeMs }) => timeMs),
    deleted: Uint8Array.from(rows, ({ deleted }) => (deleted ? 1 : 0)),
    keys: rows.flatMap(({ resource, namespace, name }) => [resource, namespace, name]),
    partitions: rows.map(({ partition }) => partition),
    lengths,
    values,
  };
}

/** The rows of a block. Their values are parts of its memory. */
export function* unpackRows(block: RowBlock): Generator<Row> {
  let offset = 0;
  for (let index = 0; index < block.count; index += 1) {
    const start = offset;
    offset += block.lengths[index] as number;
    yield {
      revision: block.revisions[index] as number,
      resource: block.keys[index * 3] as string,
      namespace: block.keys[index * 3 + 1] as string,
      name: block.keys[index * 3 + 2] as string,
      createRevision: block.createRevisions[index] as number,
      timeMs: block.timesMs[index] as number,
      deleted: block.deleted[index] === 1,
      partition: block.partitions[index],
      value: block.values.subarray(start, offset),
    };
  }
}
