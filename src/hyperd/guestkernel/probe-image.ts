import { open } from 'node:fs/promises';
import { writeSync } from 'node:fs';
import { writeErofs } from '../image/erofs.ts';
import { newNode } from '../image/tree.ts';
import type { TreeNode } from '../image/tree.ts';

const UUID = Buffer.alloc(16, 7);

/** An image with a shell, `cat` and an empty place to mount a volume at. */
export async function createProbeImage(path: string, busybox: Buffer): Promise<void> {
  const root = directory({
    bin: directory({
      busybox: { ...newNode('file', 0), mode: 0o755, size: busybox.length },
      sh: { ...newNode('symlink', 0), mode: 0o777, target: 'busybox', size: 7 },
      cat: { ...newNode('symlink', 0), mode: 0o777, target: 'busybox', size: 7 },
    }),
    memory: directory({}),
  });
  const file = await open(path, 'wx', 0o600);
  try {
    const { bytes } = writeErofs(
      root,
      { write: (chunk, position) => void writeSync(file.fd, chunk, 0, chunk.length, position) },
      (_, offset, into) => void busybox.copy(into, 0, offset, offset + into.length),
      UUID,
    );
    await file.truncate(bytes);
  } finally {
    await file.close();
  }
}

function directory(children: Record<string, TreeNode>): TreeNode {
  return { ...newNode('directory', 0), children: new Map(Object.entries(children)) };
}
