import { readFileSync } from 'node:fs';

/** The Kubernetes whose API is served; kubectl chooses its behaviour by it. */
export const KUBERNETES_VERSION = { major: '1', minor: '35', patch: '0' } as const;

export function versionString(): string {
  const path = new URL('../../package.json', import.meta.url);
  return (JSON.parse(readFileSync(path, 'utf8')) as { version: string }).version;
}

/** As servers and nodes report it: `v1.35.0+hypernetes.0.1.0`. */
export function gitVersion(): string {
  const { major, minor, patch } = KUBERNETES_VERSION;
  return `v${major}.${minor}.${patch}+hypernetes.${versionString()}`;
}

export function printVersion(): void {
  const { major, minor } = KUBERNETES_VERSION;
  process.stdout.write(`hypernetes ${versionString()} (Kubernetes ${major}.${minor} API)\n`);
}
