/** Clients choose their behaviour, and dispatchers a kubectl, by the minor version. */
const KUBERNETES_MINOR = 35;

export const versionInfo = {
  major: '1',
  minor: String(KUBERNETES_MINOR),
  gitVersion: `v1.${KUBERNETES_MINOR}.0+hypernetes`,
  gitCommit: '0000000000000000000000000000000000000000',
  gitTreeState: 'clean',
  buildDate: '1970-01-01T00:00:00Z',
  goVersion: 'none',
  compiler: 'node',
  platform: `${process.platform}/${process.arch === 'x64' ? 'amd64' : process.arch}`,
};
