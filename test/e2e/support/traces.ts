import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { execute } from '../../../src/base/exec.ts';
import { namesOf } from '../../../src/network/linux/commands.ts';

/**
 * What the data directory's Hypernetes has on this machine at the moment: network namespaces,
 * devices, nftables tables and processes. In the words of the tools that list them.
 */
export async function tracesOf(dataDir: string): Promise<string[]> {
  const { scope } = namesOf(join(dataDir, 'hyperd/network'));
  const lines: string[] = [];
  const commands: [string, string[]][] = [
    ['ip', ['netns', 'list']],
    ['ip', ['-brief', 'link']],
    ['nft', ['list', 'tables']],
  ];
  for (const [command, args] of commands) {
    const { stdout } = await execute(command, args);
    lines.push(...stdout.split('\n').filter((line) => line.includes(scope)));
  }
  const processes = await execute('ps', ['-ww', '-eo', 'pid,args']);
  lines.push(...processes.stdout.split('\n').filter((line) => line.includes(dataDir)));
  for (const name of ['pods', 'vms']) {
    lines.push(...(await readdir(join(dataDir, 'hyperd', name)).catch(() => [])));
  }
  return lines;
}
