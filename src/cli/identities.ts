import { hostname } from 'node:os';
import { join } from 'node:path';
import { ensurePki } from '../auth/pki.ts';
import { createBootstrapToken, formatJoinToken } from '../auth/bootstrap-tokens.ts';
import { renderKubeconfig } from '../auth/kubeconfig.ts';
import type { KubeObject } from '../api/object.ts';
import { systemClock } from '../base/clock.ts';
import { readFileIfExists, writeFileAtomic } from '../base/files.ts';
import { systemRandom } from '../base/random.ts';
import type { DataPaths, MachineConfig } from './config.ts';

/** How the kubelet on the server's own machine joins: like any other, with a token made for it. */
export interface LocalJoin {
  url: string;
  token: string;
  /** Makes the token valid; the server creates it at its start. */
  secret: KubeObject;
}

const LOCAL_TOKEN_LIFETIME_MS = 3600 * 1000;

/** First address of the service range: where pods find the API server by Kubernetes' convention. */
function apiServiceAddress(serviceCidr: string): string {
  const [base = ''] = serviceCidr.split('/');
  return base.replace(/\d+$/, (last) => String(Number(last) + 1));
}

export function serverHosts(config: MachineConfig): string[] {
  const names = ['kubernetes', 'kubernetes.default', 'kubernetes.default.svc'];
  const cluster = 'kubernetes.default.svc.cluster.local';
  const local = ['localhost', '127.0.0.1', hostname(), config.nodeName];
  const all = [...names, cluster, ...local, config.address, apiServiceAddress(config.serviceCidr)];
  return [...new Set(all)];
}

/** Certificates, the administrator's kubeconfig, and the way in for the local kubelet. */
export async function prepareIdentities(paths: DataPaths, config: MachineConfig): Promise<void> {
  const environment = { clock: systemClock, random: systemRandom };
  const pki = await ensurePki(paths.pki, { hosts: serverHosts(config), ...environment });
  const url = `https://127.0.0.1:${config.apiPort}`;
  const kubeconfig = renderKubeconfig({
    server: url,
    caCert: pki.caCert,
    clientCert: pki.adminCert,
    clientKey: pki.adminKey,
  });
  await writeFileAtomic(paths.adminKubeconfig, kubeconfig);
  const { bearerToken, secret } = createBootstrapToken({
    ...environment,
    description: `The kubelet of ${config.nodeName}, which runs beside the server.`,
    lifetimeMs: LOCAL_TOKEN_LIFETIME_MS,
  });
  const local: LocalJoin = { url, token: formatJoinToken(pki.caSha256, bearerToken), secret };
  await writeFileAtomic(localJoinPath(paths), JSON.stringify(local));
}

export async function readLocalJoin(paths: DataPaths): Promise<LocalJoin | undefined> {
  const text = await readFileIfExists(localJoinPath(paths));
  return text === undefined ? undefined : (JSON.parse(text) as LocalJoin);
}

function localJoinPath(paths: DataPaths): string {
  return join(paths.root, 'server/local-join.json');
}
