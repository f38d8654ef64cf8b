/** What a kubeconfig of one cluster and one user says. Certificates and keys are PEM. */
export interface KubeconfigFields {
  server: string;
  caCert: string;
  clientCert?: string;
  clientKey?: string;
  token?: string;
  /** @default hypernetes */
  clusterName?: string;
  /** @default kubernetes-admin */
  userName?: string;
  namespace?: string;
}

/** A kubeconfig with everything embedded, so that it works from any directory. */
export function renderKubeconfig(fields: KubeconfigFields): string {
  const cluster = fields.clusterName ?? 'hypernetes';
  const user = fields.userName ?? 'kubernetes-admin';
  const context = `${user}@${cluster}`;
  // JSON strings are YAML strings, whatever they contain.
  const quote = (value: string) => JSON.stringify(value);
  const base64 = (pem: string) => Buffer.from(pem).toString('base64');
  const line = (key: string, value: string | undefined) =>
    value === undefined ? [] : [`    ${key}: ${value}`];
  return [
    'apiVersion: v1',
    'kind: Config',
    'clusters:',
    `- name: ${quote(cluster)}`,
    '  cluster:',
    ...line('server', quote(fields.server)),
    ...line('certificate-authority-data', base64(fields.caCert)),
    'users:',
    `- name: ${quote(user)}`,
    '  user:',
    ...line('client-certificate-data', fields.clientCert && base64(fields.clientCert)),
    ...line('client-key-data', fields.clientKey && base64(fields.clientKey)),
    ...line('token', fields.token && quote(fields.token)),
    'contexts:',
    `- name: ${quote(context)}`,
    '  context:',
    ...line('cluster', quote(cluster)),
    ...line('user', quote(user)),
    ...line('namespace', fields.namespace && quote(fields.namespace)),
    `current-context: ${quote(context)}`,
    '',
  ].join('\n');
}
