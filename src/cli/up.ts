import { createWriteStream, openSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { join, resolve } from 'node:path';
import { start } from '../base/exec.ts';
import { parseKeystoneUrl } from '../identity/keystone/options.ts';
import type { MachineType } from '../hyperd/vmm/qemu/models.ts';
import { systemClock } from '../base/clock.ts';
import { createLog } from '../base/log.ts';
import { dataDirectory, dataPaths } from './config.ts';
import type { DataPaths, MachineConfig } from './config.ts';
import { queryStatus, refuseRunning, serveControl } from './control.ts';
import type { MachineStatus } from './control.ts';
import { untilRemoved } from './data-watch.ts';
import { prepareData } from './data.ts';
import type { ConfigOverrides } from './data.ts';
import { UsageError } from './errors.ts';
import { removeLocalPods } from './local-pods.ts';
import { refuseTakenPorts } from './ports.ts';
import { superviseComponents } from './supervisor.ts';
import type { ComponentSpec, Supervisor } from './supervisor.ts';
import { versionString } from './version.ts';

/** What any machine can be told when it starts. */
export interface MachineOptions {
  detach?: boolean;
  address?: string;
  nodeName?: string;
  kubeletPort?: number;
  registryPort?: number;
  machine?: MachineType;
  warmPool?: string;
  maxPods?: number;
}

export interface UpOptions extends MachineOptions {
  apiPort?: number;
  tenantNodes?: MachineConfig['tenantNodes'];
  keystone?: string;
  keystoneCredentials?: string;
  keystoneCa?: string;
  keystoneTenants?: 'create' | 'existing';
}

/** In the order in which they start; they end the other way round. */
const COMPONENTS: Record<MachineConfig['role'], string[]> = {
  server: ['hyperd', 'server', 'kubelet'],
  node: ['hyperd', 'kubelet'],
  standalone: ['hyperd'],
};

const MAIN = fileURLToPath(new URL('./main.ts', import.meta.url));
/** What a slow machine may take from nothing to a Ready node. */
const READY_TIMEOUT_MS = 60_000;
const READY_POLL_MS = 20;

export function up(dataDir: string | undefined, options: UpOptions): Promise<void> {
  const { detach, keystone, keystoneCredentials, keystoneCa, keystoneTenants, ...rest } = options;
  const given = { keystone, keystoneCredentials, keystoneCa, keystoneTenants };
  const overrides = { ...rest, ...keystoneOverride(given) };
  return bringUp(dataDir, 'server', overrides, detach ?? false, 'up');
}

/** `--keystone embedded` goes back to the embedded service; absent, what is configured stays. */
function keystoneOverride(options: Pick<UpOptions, KeystoneOption>): ConfigOverrides {
  const { keystone: url, keystoneCredentials: credentialsFile, keystoneCa: caFile } = options;
  if (url === undefined) {
    const [lonely] = Object.entries(options).find(([, value]) => value !== undefined) ?? [];
    if (lonely) throw new UsageError(`Cannot use the options of a Keystone without --keystone URL`);
    return {};
  }
  if (url === 'embedded') return { keystone: null };
  parseKeystoneUrl(url);
  if (credentialsFile === undefined) {
    throw new UsageError(
      'Cannot use Keystone without a user of it: name a file that sets OS_USERNAME, OS_PASSWORD and ' +
        'so on (an "openrc") with --keystone-credentials.',
    );
  }
  const keystone = {
    url,
    credentialsFile: resolve(credentialsFile),
    caFile: caFile === undefined ? null : resolve(caFile),
    createsTenants: options.keystoneTenants === 'create',
  };
  return { keystone };
}

type KeystoneOption = 'keystone' | 'keystoneCredentials' | 'keystoneCa' | 'keystoneTenants';

/** Starts what a machine of this role runs, with what the command line says of it. */
export async function bringUp(
  dataDir: string | undefined,
  role: MachineConfig['role'],
  overrides: ConfigOverrides,
  detach: boolean,
  command: string,
  /** Whose command it is. @default this one's */
  program = MAIN,
): Promise<void> {
  if (process.getuid?.() !== 0) {
    throw new UsageError(
      `Cannot run "${command}": not root, and VMs, networks and jails need it. Run it with sudo.`,
    );
  }
  const paths = dataPaths(dataDirectory(dataDir));
  // Before anything is written: what runs reads the same files when a part of it restarts.
  await refuseRunning(paths.supervisorSocket);
  const config = await prepareData(paths, role, overrides);
  if (detach) await detachSelf(paths, program, command);
  else await runForeground(paths, config);
}

/**
 * Starts the same command again without `--detach` and waits until the node is Ready. What the
 * command line said is in the data directory already.
 */
async function detachSelf(paths: DataPaths, program: string, command: string): Promise<void> {
  const logPath = join(paths.log, 'supervisor.log');
  const output = openSync(logPath, 'a', 0o600);
  const args = [...process.execArgv, program, '--data-dir', paths.root, command];
  const child = start(process.execPath, args, {
    detached: true,
    stdio: ['ignore', output, output],
  });
  let exitCode: number | null | undefined;
  child.on('exit', (code) => (exitCode = code ?? 1));
  const deadlineMs = systemClock.monotonicMs() + READY_TIMEOUT_MS;
  for (;;) {
    const status = await queryStatus(paths.supervisorSocket);
    if (status && isReady(status)) break;
    if (exitCode !== undefined) {
      throw new UsageError(await lastWords(logPath));
    }
    if (systemClock.monotonicMs() > deadlineMs) {
      throw new UsageError(
        `It is not ready after ${READY_TIMEOUT_MS / 1000} s: see "hypernetes logs".`,
      );
    }
    await systemClock.sleep(READY_POLL_MS);
  }
  child.unref();
}

function isReady(status: MachineStatus): boolean {
  const { components } = status;
  return components.length > 0 && components.every(({ state }) => state === 'ready');
}

/** Why it ended, as it has told its log. */
async function lastWords(path: string): Promise<string> {
  const { readFileIfExists } = await import('../base/files.ts');
  const lines = ((await readFileIfExists(path)) ?? '').trimEnd().split('\n');
  const prefix = 'hypernetes: ';
  const last = lines.findLast((line) => line.startsWith(prefix));
  return last?.slice(prefix.length) ?? `It ended while starting. ${lines.at(-1) ?? ''}`;
}

async function runForeground(paths: DataPaths, config: MachineConfig): Promise<void> {
  const startedAtMs = systemClock.nowMs();
  const log = createLog({ component: 'supervisor', write: supervisorLog(paths) });
  const stopping = Promise.withResolvers<{ keepPods: boolean }>();
  const stopped = Promise.withResolvers<void>();
  const watching = new AbortController();
  stopped.promise.catch(() => {});
  let supervisor: Supervisor | undefined;
  let failure: unknown;
  const control = await serveControl(paths.supervisorSocket, {
    status: () => ({
      pid: process.pid,
      version: versionString(),
      role: config.role,
      nodeName: config.nodeName,
      machine: config.machine,
      startedAtMs,
      components: supervisor?.status() ?? [],
    }),
    stop(request) {
      stopping.resolve(request);
      return stopped.promise;
    },
  });
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    const keepPods = signal === 'SIGTERM' || config.role === 'standalone';
    process.once(signal, () => stopping.resolve({ keepPods }));
  }
  try {
    await refuseTakenPorts(config);
    if (config.role === 'server') {
      // Only this process needs it: whoever waits for a detached one is there sooner.
      const { prepareIdentities } = await import('./identities.ts');
      await prepareIdentities(paths, config);
    }
    supervisor = superviseComponents(componentSpecs(paths, COMPONENTS[config.role]), {
      clock: systemClock,
      log,
    });
    void supervisor.ready().then(
      () => printReady(config, startedAtMs),
      () => {},
    );
    const { keepPods } = await Promise.race([
      stopping.promise,
      supervisor.failed,
      untilRemoved(paths.root, systemClock, watching.signal),
    ]);
    await supervisor.stop('kubelet');
    if (!keepPods) await removeLocalPods(paths.hyperdSocket, systemClock);
  } catch (error) {
    failure = error;
    throw error;
  } finally {
    watching.abort();
    await supervisor?.stop();
    if (failure === undefined) stopped.resolve();
    else stopped.reject(failure);
    await control.close();
  }
}

export function componentSpecs(paths: DataPaths, names: string[]): ComponentSpec[] {
  return names.map((name) => ({
    name,
    command: process.execPath,
    args: [...process.execArgv, MAIN, '--data-dir', paths.root, 'run', name],
    logPath: join(paths.log, `${name}.log`),
  }));
}

function supervisorLog(paths: DataPaths): (line: string) => void {
  const stream = createWriteStream(join(paths.log, 'supervisor.log'), { flags: 'a', mode: 0o600 });
  return (line) => void stream.write(line);
}

function printReady(config: MachineConfig, startedAtMs: number): void {
  const seconds = ((systemClock.nowMs() - startedAtMs) / 1000).toFixed(1);
  const what =
    config.role === 'standalone' ? 'hyperd is ready' : `node ${config.nodeName} is Ready`;
  process.stdout.write(`${what} after ${seconds} s\n`);
}
