import assert from 'node:assert/strict';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { execute } from '../../../src/base/exec.ts';
import type { ExecOptions, ExecResult } from '../../../src/base/exec.ts';
import { runCli } from './cluster.ts';
import type { Kubectl } from './kubectl.ts';

/**
 * Somebody with a home directory of their own, on a machine that is no part of the cluster: nothing
 * of the administrator's is found by chance.
 */
export interface Person {
  name: string;
  home: string;
  kubeconfig: string;
  env: NodeJS.ProcessEnv;
  hypernetes(...args: string[]): Promise<ExecResult>;
  /** What it printed, of a command that has to succeed. */
  ok(...args: string[]): Promise<string>;
  /** What it said on standard error, of one that has to fail. */
  fails(...args: string[]): Promise<string>;
  /** The real kubectl, with the kubeconfig that login wrote. */
  kubectl(...args: string[]): Promise<ExecResult>;
  /** A file in the home directory; its path. */
  file(name: string, content: string): Promise<string>;
  read(name: string): Promise<string>;
}

/** @param root directory of all people of a test */
export async function createPerson(root: string, name: string, kubectl: Kubectl): Promise<Person> {
  const home = join(root, name);
  await rm(home, { recursive: true, force: true });
  await mkdir(home, { mode: 0o700 });
  const own = Object.entries(process.env).filter(([key]) => !/^(OS_|XDG_|KUBECONFIG)/.test(key));
  const env = {
    ...Object.fromEntries(own),
    HOME: home,
    HYPERNETES_DATA_DIR: join(home, 'no-server-here'),
    // As the program itself has it, when it is started by its own name.
    NODE_COMPILE_CACHE: join(root, 'compile-cache'),
  };
  const options: ExecOptions = { env };
  // runCli adds to this process' environment, of which a person has nothing.
  const absent = Object.fromEntries(Object.keys(process.env).map((key) => [key, undefined]));
  const hypernetes = (...args: string[]) => runCli(args, { ...absent, ...env });
  const shown = (args: string[], { stdout, stderr }: ExecResult) =>
    `hypernetes ${args.join(' ')}: ${stderr}${stdout}`;
  return {
    ...{ name, home, env, hypernetes },
    kubeconfig: join(home, '.kube/config'),
    async ok(...args) {
      const result = await hypernetes(...args);
      assert.equal(result.exitCode, 0, shown(args, result));
      return result.stdout;
    },
    async fails(...args) {
      const result = await hypernetes(...args);
      assert.notEqual(result.exitCode, 0, shown(args, result));
      assert.doesNotMatch(result.stderr, /\n\s+at /, 'no stack is shown');
      return result.stderr;
    },
    kubectl: (...args) => execute(kubectl.path, args, options),
    async file(fileName, content) {
      const path = join(home, fileName);
      await writeFile(path, content, { mode: 0o600 });
      return path;
    },
    read: (fileName) => readFile(join(home, fileName), 'utf8'),
  };
}
