import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createClient } from '../../../src/client/client.ts';
import type { Client } from '../../../src/client/client.ts';
import { createHttpsTransport } from '../../../src/client/https.ts';
import type { HttpsTransport } from '../../../src/client/https.ts';
import { loadKubeconfig } from '../../../src/client/kubeconfig.ts';
import type { ClusterAccess } from '../../../src/client/kubeconfig.ts';
import { execute } from '../../../src/base/exec.ts';
import type { ExecResult } from '../../../src/base/exec.ts';
import type { MachineStatus } from '../../../src/cli/control.ts';
import { queryStatus } from '../../../src/cli/control.ts';

/**
 * A cluster of the product's own making, started by its own command line on a data directory that
 * exists for one test file. Set-up is that of the machine (`./hypernetes test` has done it).
 */
export interface TestCluster {
  dataDir: string;
  kubeconfig: string;
  apiPort: number;
  kubeletPort: number;
  registryPort: number;
  access: ClusterAccess;
  transport: HttpsTransport;
  client: Client;
  /** Runs the product's command line against this cluster. */
  cli(...args: string[]): Promise<ExecResult>;
  status(): Promise<MachineStatus | undefined>;
  /** Process id of a component as it is now. */
  pidOf(component: string): Promise<number>;
  [Symbol.asyncDispose](): Promise<void>;
}

const MAIN = join(import.meta.dirname, '../../../src/cli/main.ts');
const CLI_TIMEOUT_MS = 180_000;

export function runCli(args: string[], env: NodeJS.ProcessEnv = {}): Promise<ExecResult> {
  const options = { env: { ...process.env, ...env }, timeoutMs: CLI_TIMEOUT_MS };
  return execute(process.execPath, [...process.execArgv, MAIN, ...args], options);
}

/** A port that nobody had a moment ago. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/**
 * @param extra arguments of `up`
 * @param prepare puts files into the data directory before the first start
 */
export async function startCluster(
  extra: string[] = [],
  prepare: (dataDir: string) => Promise<void> = async () => {},
): Promise<TestCluster> {
  const dataDir = await mkdtemp(join(tmpdir(), 'hn-'));
  await prepare(dataDir);
  const [apiPort, kubeletPort, registryPort] = [
    await freePort(),
    await freePort(),
    await freePort(),
  ];
  const ports = [
    '--api-port',
    apiPort,
    '--kubelet-port',
    kubeletPort,
    '--registry-port',
    registryPort,
  ];
  const cli = (...args: string[]) => runCli(['--data-dir', dataDir, ...args]);
  const up = await cli('up', '--detach', ...ports.map(String), ...extra);
  if (up.exitCode !== 0) {
    const logs = await cli('logs', '-n', '30');
    await cli('down');
    await rm(dataDir, { recursive: true, force: true });
    throw new Error(`up failed: ${up.stderr}${up.stdout}\n${logs.stdout}`);
  }
  const kubeconfig = join(dataDir, 'server/admin.kubeconfig');
  const access = await loadKubeconfig(kubeconfig);
  const transport = createHttpsTransport(access);
  const status = () => queryStatus(join(dataDir, 'run/supervisor.sock'));
  return {
    dataDir,
    kubeconfig,
    apiPort,
    kubeletPort,
    registryPort,
    access,
    transport,
    client: createClient(transport, { userAgent: 'e2e' }),
    cli,
    status,
    async pidOf(component) {
      const pid = (await status())?.components.find(({ name }) => name === component)?.pid;
      if (pid === undefined) throw new Error(`component ${component} does not run`);
      return pid;
    },
    async [Symbol.asyncDispose]() {
      await transport.close();
      const down = await cli('down');
      if (process.env.HYPERNETES_TEST_LOGS) {
        for (const name of ['supervisor', 'server', 'kubelet', 'hyperd']) {
          const text = await readFile(join(dataDir, 'log', `${name}.log`), 'utf8').catch(() => '');
          console.log(`--- ${name}\n${text}`);
        }
      }
      await rm(dataDir, { recursive: true, force: true });
      if (down.exitCode !== 0) throw new Error(`down failed: ${down.stderr}`);
    },
  };
}
