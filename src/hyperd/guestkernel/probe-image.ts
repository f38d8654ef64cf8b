import { writeProgramDisk } from '../image/program-disk.ts';
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
  await writeProgramDisk(path, root, busybox, UUID, { flags: 'wx', mode: 0o600 });
}

function directory(children: Record<string, TreeNode>): TreeNode {
  return { ...newNode('directory', 0), children: new Map(Object.entries(children)) };
}
