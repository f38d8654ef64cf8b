import { readFile, rename } from 'node:fs/promises';
import { writeProgramDisk } from '../image/program-disk.ts';
import { newNode } from '../image/tree.ts';
import { REHEARSAL_PROGRAM } from './rehearsal.ts';

/** What images have, and what is mounted over or made beside of when a container starts. */
const DIRECTORIES = ['dev', 'etc', 'proc', 'sys', 'tmp', 'usr', 'var'];
const LINKS = { bin: 'usr/bin' };

/**
 * Writes the read-only disk of the rehearsal: a root like an image's, with one static program in it.
 *
 * @param programPath hyperstart, as it was compiled for the guest
 */
export async function createRehearsalDisk(path: string, programPath: string): Promise<void> {
  const content = await readFile(programPath);
  const program = Object.assign(newNode('file', 0), { mode: 0o755, size: content.length });
  const root = newNode('directory', 0);
  for (const name of DIRECTORIES) root.children.set(name, newNode('directory', 0));
  for (const [name, target] of Object.entries(LINKS)) {
    root.children.set(name, Object.assign(newNode('symlink', 0), { target }));
  }
  const programs = newNode('directory', 0);
  root.children.get('usr')?.children.set('bin', programs);
  programs.children.set(REHEARSAL_PROGRAM, program);
  // VMs may have the old one open.
  const temporary = `${path}.new`;
  const uuid = Buffer.alloc(16);
  await writeProgramDisk(temporary, root, content, uuid, { flags: 'w', mode: 0o644 });
  await rename(temporary, path);
}
