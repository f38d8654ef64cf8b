import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { readFileIfExists, removeTemporaries, writeFileAtomic } from '../../base/files.ts';
import type { NetworkRecord, PortRecord } from '../allocation.ts';
import { NetworkError } from '../driver.ts';

/**
 * What was promised to callers, written before the kernel is told: a crash leaves at worst a
 * record whose device is missing, which the next `ensure` or `delete` puts right.
 */
export interface LinuxNetworkState {
  networks: Map<string, LinuxNetworkRecord>;
  ports: Map<string, PortRecord>;
  /** Uplinks on which forwarding was off before us. */
  forwardingWasOff: string[];
}

export interface LinuxNetworkRecord extends NetworkRecord {
  /** Number of its link to the host. */
  slot: number;
  /** The MTU that 0 stood for, or the given one. */
  mtu: number;
}

const FILE = 'network.json';
const FORMAT = 1;

/** Empty where nothing has been saved. @throws NetworkError where the file is of another format */
export async function loadState(directory: string): Promise<LinuxNetworkState> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  await removeTemporaries(directory);
  const path = join(directory, FILE);
  const text = await readFileIfExists(path);
  if (text === undefined) return { networks: new Map(), ports: new Map(), forwardingWasOff: [] };
  const stored = JSON.parse(text) as {
    format: number;
    networks: LinuxNetworkRecord[];
    ports: PortRecord[];
    forwardingWasOff: string[];
  };
  if (stored.format !== FORMAT) {
    const message = `Cannot read "${path}": it has format ${stored.format}, wanted ${FORMAT}`;
    throw new NetworkError('Failed', message);
  }
  return {
    networks: new Map(stored.networks.map((network) => [network.spec.id, network])),
    ports: new Map(stored.ports.map((port) => [port.id, port])),
    forwardingWasOff: stored.forwardingWasOff,
  };
}

/** Replaces the file at once: a reader sees the old state or the new one. */
export async function saveState(directory: string, state: LinuxNetworkState): Promise<void> {
  const stored = {
    format: FORMAT,
    networks: [...state.networks.values()],
    ports: [...state.ports.values()],
    forwardingWasOff: state.forwardingWasOff,
  };
  await writeFileAtomic(join(directory, FILE), JSON.stringify(stored));
}
