import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { execute, run } from '../../../src/base/exec.ts';
import type { ExecResult } from '../../../src/base/exec.ts';

/**
 * Another machine, as far as the network goes: a network namespace of its own, joined to this
 * machine by a cable. Files, processes and the clock are this machine's.
 */
export interface TestHost {
  namespace: string;
  /** The device of this machine at the cable. */
  device: string;
  /** Its address, and that of this machine at the other end of the cable. */
  address: string;
  peer: string;
  /** Runs a program on it. */
  run(command: string, args: string[], timeoutMs?: number): Promise<ExecResult>;
  /** Runs the product's command line on it. */
  cli(...args: string[]): Promise<ExecResult>;
  [Symbol.asyncDispose](): Promise<void>;
}

const MAIN = join(import.meta.dirname, '../../../src/cli/main.ts');
const CLI_TIMEOUT_MS = 120_000;

const namespaceOf = (pid: number, number: number) => `e2e-host-${pid}-${number}`;
const deviceOf = (pid: number, number: number) => `e2e${pid % 1_000_000}x${number}`;

/** Removes what a run left that was killed: its addresses would take the traffic of this one. */
async function removeAbandoned(): Promise<void> {
  const listed = await run('ip', ['netns', 'list']);
  for (const [namespace, pid, number] of listed.matchAll(/^e2e-host-(\d+)-(\d+)/gm)) {
    if (existsSync(`/proc/${pid}`)) continue;
    await execute('ip', ['link', 'delete', deviceOf(Number(pid), Number(number))]);
    await execute('ip', ['netns', 'delete', namespace]);
  }
}

/** Of 198.51.100.0/24 (RFC 5737), four addresses for each cable. */
const CABLE_COUNT = 64;
const cableAddress = (cable: number, end: 1 | 2) => `198.51.100.${cable * 4 + end}`;

/** Another run of the same test on this machine may have the addresses that come first. */
async function freeCable(first: number): Promise<number> {
  const listed = JSON.parse(await run('ip', ['-json', '-4', 'addr', 'show'])) as {
    addr_info: { local: string }[];
  }[];
  const taken = new Set(listed.flatMap(({ addr_info }) => addr_info.map(({ local }) => local)));
  for (let tried = 0; tried < CABLE_COUNT; tried += 1) {
    const cable = (first + tried) % CABLE_COUNT;
    if (!taken.has(cableAddress(cable, 1))) return cable;
  }
  throw new Error(`All ${CABLE_COUNT} cables to test hosts are in use`);
}

/** @param number one for each host of a process, below 64 */
export async function createHost(number: number): Promise<TestHost> {
  const namespace = namespaceOf(process.pid, number);
  const device = deviceOf(process.pid, number);
  await removeAbandoned();
  const cable = await freeCable(number);
  const [peer, address] = [cableAddress(cable, 1), cableAddress(cable, 2)];
  await run('ip', ['netns', 'add', namespace]);
  const dispose = async () => {
    await execute('ip', ['link', 'delete', device]);
    await execute('ip', ['netns', 'delete', namespace]);
  };
  const inside = (args: string[]) => run('ip', ['-n', namespace, ...args]);
  try {
    const cable = ['type', 'veth', 'peer', 'name', 'uplink0', 'netns', namespace];
    await run('ip', ['link', 'add', device, ...cable]);
    await run('ip', ['addr', 'add', `${peer}/30`, 'dev', device]);
    await run('ip', ['link', 'set', device, 'up']);
    await inside(['addr', 'add', `${address}/30`, 'dev', 'uplink0']);
    await inside(['link', 'set', 'uplink0', 'up']);
    await inside(['link', 'set', 'lo', 'up']);
    await inside(['route', 'add', 'default', 'via', peer]);
  } catch (error) {
    await dispose();
    throw error;
  }
  // Not `ip netns exec`: that hides the namespaces which a program makes there from the next one.
  const runInside = (command: string, args: string[], timeoutMs = 60_000) =>
    execute('nsenter', [`--net=/run/netns/${namespace}`, command, ...args], { timeoutMs });
  return {
    ...{ namespace, device, address, peer },
    run: runInside,
    cli: (...args) =>
      runInside(process.execPath, [...process.execArgv, MAIN, ...args], CLI_TIMEOUT_MS),
    [Symbol.asyncDispose]: dispose,
  };
}
