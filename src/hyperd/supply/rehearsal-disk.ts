import { open, readFile, rename } from 'node:fs/promises';
import { writeErofs } from '../image/erofs.ts';
import { newNode } from '../image/tree.ts';
import { REHEARSAL_PROGRAM } from './rehearsal.ts';

/**
 * Writes the read-only disk of the rehearsal: a root with one static program in it.
 *
 * @param programPath hyperstart, as it was compiled for the guest
 */
export async function createRehearsalDisk(path: string, programPath: string): Promise<void> {
  const content = await readFile(programPath);
  const program = Object.assign(newNode('file', 0), { mode: 0o755, size: content.length });
  const root = newNode('directory', 0);
  root.children.set(REHEARSAL_PROGRAM, program);
  const parts: { bytes: Buffer; position: number }[] = [];
  const { bytes: size } = writeErofs(
    root,
    { write: (bytes, position) => void parts.push({ bytes: Buffer.from(bytes), position }) },
    (_node, offset, into) => void content.copy(into, 0, offset, offset + into.length),
    Buffer.alloc(16),
  );
  // VMs may have the old one open.
  const temporary = `${path}.new`;
  const file = await open(temporary, 'w', 0o644);
  try {
    for (const { bytes, position } of parts) await file.write(bytes, 0, bytes.length, position);
    await file.truncate(size);
  } finally {
    await file.close();
  }
  await rename(temporary, path);
}
