import { parse } from 'yaml';
import { readFileIfExists } from '../../base/files.ts';
import { UsageError } from '../errors.ts';
import { kubeconfigPath } from './kubeconfig-file.ts';
import type { Profile, ProfileStore } from './profiles.ts';

interface Named {
  name?: string;
  context?: { user?: string };
  user?: { exec?: { command?: string; args?: string[] } };
}

interface Config {
  'current-context'?: string;
  contexts?: Named[];
  users?: Named[];
}

/** The login of a kubeconfig's context; undefined where it is not one of ours. */
export async function currentLogin(
  store: ProfileStore,
  kubeconfig: string | undefined,
  contextName?: string,
): Promise<Profile | undefined> {
  const path = await kubeconfigPath(kubeconfig);
  const text = await readFileIfExists(path);
  const name = text === undefined ? undefined : profileIn(text, path, contextName);
  return name === undefined ? undefined : store.read(name);
}

/** The profile that the context's exec plugin is called with. */
function profileIn(text: string, path: string, contextName?: string): string | undefined {
  let config: Config | null;
  try {
    config = parse(text) as Config | null;
  } catch (error) {
    throw new UsageError(`Cannot read the kubeconfig "${path}": ${(error as Error).message}`);
  }
  const wanted = contextName ?? config?.['current-context'];
  const context = config?.contexts?.find(({ name }) => name === wanted)?.context;
  const exec = config?.users?.find(({ name }) => name === context?.user)?.user?.exec;
  const [verb, option, profile] = exec?.args ?? [];
  const isOurs = verb === 'credential' && option === '--profile';
  return isOurs && exec?.command?.endsWith('/hypernetes') ? profile : undefined;
}
