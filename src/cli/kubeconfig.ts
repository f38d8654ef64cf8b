import { readFileIfExists } from '../base/files.ts';
import { dataDirectory, dataPaths } from './config.ts';
import { UsageError } from './errors.ts';

export async function kubeconfig(
  dataDir: string | undefined,
  options: { path?: boolean },
): Promise<void> {
  const paths = dataPaths(dataDirectory(dataDir));
  const text = await readFileIfExists(paths.adminKubeconfig);
  if (text === undefined) {
    throw new UsageError(
      `There is no cluster on ${paths.root} yet: start one with "hypernetes up".`,
    );
  }
  process.stdout.write(options.path ? `${paths.adminKubeconfig}\n` : text);
}
