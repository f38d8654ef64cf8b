import { accessSync, constants, readdirSync, realpathSync } from 'node:fs';
import { delimiter, dirname, join } from 'node:path';
import { execute } from '../../../src/base/exec.ts';
import type { ExecOptions, ExecResult } from '../../../src/base/exec.ts';
import { unpackPackage } from './debian.ts';

/**
 * Every kubectl of this machine: the one on the PATH, and versioned ones (`kubectl.1.33`) beside
 * it or beside the file that it links to. Where there is none, that of Debian's
 * kubernetes-client, which is old (1.20) and is unpacked, not installed.
 */
export interface Kubectl {
  path: string;
  /** `1.33` */
  version: string;
  /** 33 */
  minor: number;
  (args: string[], options?: ExecOptions): Promise<ExecResult>;
  /** Like the call, but throws unless it exits with 0; returns what it printed. */
  ok(args: string[], options?: ExecOptions): Promise<string>;
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

function candidates(): string[] | undefined {
  const onPath = (process.env.PATH ?? '').split(delimiter).map((folder) => join(folder, 'kubectl'));
  const first = onPath.find(isExecutable);
  if (!first) return undefined;
  const folders = new Set([dirname(first), dirname(realpathSync(first))]);
  const versioned = [...folders].flatMap((folder) =>
    readdirSync(folder)
      .filter((name) => /^kubectl\.1\.\d+$/.test(name))
      .map((name) => join(folder, name)),
  );
  return versioned.length > 0 ? [...new Set(versioned)].sort() : [first];
}

/** @param kubeconfig of the cluster that the returned functions talk to */
export async function findKubectls(kubeconfig: string, cacheDir: string): Promise<Kubectl[]> {
  const found: Kubectl[] = [];
  for (const path of candidates() ?? (await debianKubectl())) {
    const call = (args: string[], options: ExecOptions = {}) =>
      execute(path, ['--kubeconfig', kubeconfig, '--cache-dir', cacheDir, ...args], options);
    const version = await execute(path, ['version', '--client', '-o', 'json']);
    const match = /"gitVersion": "v(1\.(\d+))/.exec(version.stdout);
    const ok = async (args: string[], options?: ExecOptions) => {
      const result = await call(args, options);
      if (result.exitCode !== 0) {
        throw new Error(`kubectl ${args.join(' ')}: exit ${result.exitCode}: ${result.stderr}`);
      }
      return result.stdout;
    };
    const [, name = 'unknown', minor = '0'] = match ?? [];
    found.push(Object.assign(call, { path, version: name, minor: Number(minor), ok }));
  }
  return found;
}

async function debianKubectl(): Promise<string[]> {
  return [join(await unpackPackage('kubernetes-client'), 'usr/bin/kubectl')];
}
