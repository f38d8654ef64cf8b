import { fileURLToPath } from 'node:url';
import { start } from '../base/exec.ts';

/** The tests are the project's, not the product's: they run in a process of their own. */
export async function runTests(dataDir: string | undefined, stages: string[]): Promise<void> {
  const runner = fileURLToPath(new URL('../../test/run.ts', import.meta.url));
  const env = dataDir ? { ...process.env, HYPERNETES_DATA_DIR: dataDir } : process.env;
  const child = start(process.execPath, [...process.execArgv, runner, ...stages], {
    stdio: 'inherit',
    env,
  });
  process.exitCode = await new Promise<number>((resolve) => {
    child.on('exit', (code) => resolve(code ?? 1));
  });
}
