import { WebSocket } from 'ws';
import type { ClusterAccess } from '../../client/kubeconfig.ts';
import type { Status } from '../../api/status.ts';

/** What a command in a pod printed, and how it ended. */
export interface ExecOutcome {
  stdout: string;
  stderr: string;
  exitCode: number;
}

/** Kubernetes' remote command protocol: the first byte of a message is its channel. */
const PROTOCOL = 'v5.channel.k8s.io';
const CHANNEL = { stdout: 1, stderr: 2, status: 3 } as const;

/** Runs a command in a pod's container through the API server, as `kubectl exec` does. */
export function execInPod(
  access: ClusterAccess,
  pod: { namespace: string; name: string },
  command: string[],
): Promise<ExecOutcome> {
  const query = new URLSearchParams({ stdout: 'true', stderr: 'true' });
  for (const word of command) query.append('command', word);
  const path = `/api/v1/namespaces/${pod.namespace}/pods/${pod.name}/exec`;
  const url = `${access.server.replace(/^http/, 'ws')}${path}?${query}`;
  const socket = new WebSocket(url, PROTOCOL, {
    ca: access.caCert,
    cert: access.clientCert,
    key: access.clientKey,
  });
  const outcome: ExecOutcome = { stdout: '', stderr: '', exitCode: -1 };
  return new Promise((resolve, reject) => {
    socket.on('message', (data: Buffer) => {
      const text = data.subarray(1).toString('utf8');
      if (data[0] === CHANNEL.stdout) outcome.stdout += text;
      if (data[0] === CHANNEL.stderr) outcome.stderr += text;
      if (data[0] === CHANNEL.status) outcome.exitCode = exitCodeOf(JSON.parse(text) as Status);
    });
    socket.on('error', reject);
    socket.on('close', (code) => {
      if (outcome.exitCode >= 0) resolve(outcome);
      else reject(new Error(`Cannot run ${command[0]} in pod "${pod.name}": closed with ${code}`));
    });
  });
}

function exitCodeOf(status: Status): number {
  if (status.status === 'Success') return 0;
  const cause = status.details?.causes?.find(({ reason }) => reason === 'ExitCode');
  if (!cause) throw new Error(status.message);
  return Number(cause.message);
}
