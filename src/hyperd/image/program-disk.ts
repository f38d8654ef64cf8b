import { writeSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { writeErofs } from './erofs.ts';
import type { TreeNode } from './tree.ts';

/**
 * Writes a tree in which every file is the same program, of hyperd's own, as a read-only disk.
 *
 * @param flags of `open`: `wx` where the file must not be there yet
 */
export async function writeProgramDisk(
  path: string,
  root: TreeNode,
  program: Buffer,
  uuid: Uint8Array,
  { flags, mode }: { flags: 'w' | 'wx'; mode: number },
): Promise<void> {
  const file = await open(path, flags, mode);
  try {
    const { bytes } = writeErofs(
      root,
      { write: (chunk, position) => void writeSync(file.fd, chunk, 0, chunk.length, position) },
      (_, offset, into) => void program.copy(into, 0, offset, offset + into.length),
      uuid,
    );
    await file.truncate(bytes);
  } finally {
    await file.close();
  }
}
