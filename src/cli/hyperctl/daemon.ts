import { fileURLToPath } from 'node:url';
import { resolve } from 'node:path';
import type { MachineType } from '../../hyperd/vmm/qemu/models.ts';
import { parseCidr } from '../../network/address.ts';
import { describeError } from '../../base/log.ts';
import { dataDirectory, dataPaths } from '../config.ts';
import type { DoorConfig } from '../config.ts';
import { queryStatus, requestStop } from '../control.ts';
import type { ConfigOverrides } from '../data.ts';
import { readConfig } from '../data.ts';
import { UsageError } from '../errors.ts';
import { bringUp } from '../up.ts';
import { parseWarmPool } from '../warm-pool.ts';
import type { Place } from './connection.ts';

export interface DaemonFlags {
  detach?: boolean;
  cidr?: string;
  /** `none` closes the door again. */
  listen?: string;
  tlsCert?: string;
  tlsKey?: string;
  clientCa?: string;
  machine?: MachineType;
  warmPool?: string;
}

const MAIN = fileURLToPath(new URL('./main.ts', import.meta.url));
const PORT_MAX = 65_535;

/** hyperd alone, without Kubernetes, on the data directory. */
export async function runDaemon(place: Place, flags: DaemonFlags): Promise<void> {
  const { machine, warmPool } = flags;
  const overrides: ConfigOverrides = {
    ...cidrOverride(flags.cidr),
    ...doorOverride(flags),
    machine,
    ...(warmPool === undefined ? {} : { warmPool: parseWarmPool(warmPool) }),
  };
  await bringUp(place.dataDir, 'standalone', overrides, flags.detach ?? false, 'daemon', MAIN);
}

/** For a command that needs a hyperd and finds none. @throws UsageError on a cluster's machine */
export async function startDaemon(place: Place): Promise<void> {
  const paths = dataPaths(dataDirectory(place.dataDir));
  const config = await readConfig(paths);
  if (config && config.role !== 'standalone') {
    throw new UsageError(
      `Cannot reach hyperd on ${paths.root}: it is part of a ${config.role}, which does not run. ` +
        'Start it with "hypernetes up".',
    );
  }
  process.stderr.write('hyperd does not run here, starting it\n');
  await runDaemon(place, { detach: true });
}

/** @param removePods ends all pods, which otherwise run on without anybody who looks after them */
export async function stopDaemon(place: Place, removePods: boolean): Promise<void> {
  const paths = dataPaths(dataDirectory(place.dataDir));
  const running = await queryStatus(paths.supervisorSocket);
  if (!running) {
    process.stdout.write(`nothing runs on ${paths.root}\n`);
    return;
  }
  if (running.role !== 'standalone') {
    throw new UsageError(
      `Cannot stop hyperd on ${paths.root}: it is part of a ${running.role}. Use "hypernetes down".`,
    );
  }
  await requestStop(paths.supervisorSocket, { keepPods: !removePods });
  process.stdout.write(removePods ? 'stopped\n' : 'stopped; pods that ran run on\n');
}

function cidrOverride(cidr: string | undefined): ConfigOverrides {
  if (cidr === undefined) return {};
  try {
    parseCidr(cidr);
  } catch (error) {
    throw new UsageError(`Cannot use --cidr: ${describeError(error)}.`);
  }
  return { hyperctlCidr: cidr };
}

function doorOverride({ listen, tlsCert, tlsKey, clientCa }: DaemonFlags): ConfigOverrides {
  const files = { '--tls-cert': tlsCert, '--tls-key': tlsKey, '--client-ca': clientCa };
  if (listen === undefined) {
    const [lonely] = Object.entries(files).find(([, path]) => path !== undefined) ?? [];
    if (lonely) throw new UsageError(`Cannot use ${lonely} without --listen HOST:PORT.`);
    return {};
  }
  if (listen === 'none') return { hyperdDoor: null };
  const [, bracketed, bare, port = ''] =
    /^(?:\[([^\]]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(listen) ?? [];
  const host = bracketed ?? bare ?? '';
  if (host === '' || Number(port) < 1 || Number(port) > PORT_MAX) {
    throw new UsageError(`Cannot use --listen "${listen}": write it as HOST:PORT.`);
  }
  const [missing] = Object.entries(files).find(([, path]) => path === undefined) ?? [];
  if (missing) {
    throw new UsageError(
      `Cannot use --listen without ${missing}: clients elsewhere are known by certificates alone.`,
    );
  }
  const hyperdDoor: DoorConfig = {
    ...{ host, port: Number(port) },
    certFile: resolve(tlsCert ?? ''),
    keyFile: resolve(tlsKey ?? ''),
    clientCaFile: resolve(clientCa ?? ''),
  };
  return { hyperdDoor };
}
