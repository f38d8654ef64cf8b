import { access, readFile, readdir, writeFile } from 'node:fs/promises';
import type { Exec, ExecOptions } from '../../base/exec.ts';
import { NetworkError } from '../driver.ts';

/** `ip` and `nft`, in the own network namespace or in a named one. */
export interface Kernel {
  namespaces(): Promise<string[]>;
  namespaceExists(name: string): Promise<boolean>;
  addNamespace(name: string): Promise<void>;
  deleteNamespace(name: string): Promise<void>;
  /** Runs lines of `ip -batch`; the first that fails ends it. */
  ip(namespace: string | undefined, lines: string[], signal?: AbortSignal): Promise<void>;
  nft(namespace: string | undefined, rules: string, signal?: AbortSignal): Promise<void>;
  /** Text of a table of the inet family; empty where there is none. */
  table(namespace: string | undefined, name: string): Promise<string>;
  devices(namespace: string | undefined, signal?: AbortSignal): Promise<Set<string>>;
  /** Removes a device; one that is not there is fine. */
  deleteDevice(namespace: string | undefined, name: string): Promise<void>;
  /** Switches settings under /proc/sys of a namespace on; those that the kernel lacks are left. */
  switchOn(namespace: string, settings: string[]): Promise<void>;
  /** IPv4 addresses of this host. */
  addresses(): Promise<Set<string>>;
  /** Devices with a default route. */
  uplinks(): Promise<{ name: string; mtu: number }[]>;
  isForwarding(device: string): Promise<boolean>;
  setForwarding(device: string, on: boolean): Promise<void>;
}

interface IpLink {
  ifname: string;
  mtu: number;
}

/** Where `ip netns` keeps them; missing until the first one. */
const NAMESPACES = '/run/netns';
const COMMAND_TIMEOUT_MS = 20_000;

export function createKernel(exec: Exec): Kernel {
  const run = async (command: string, args: string[], options: ExecOptions = {}) => {
    const result = await exec(command, args, { timeoutMs: COMMAND_TIMEOUT_MS, ...options });
    if (result.exitCode === 0) return result.stdout;
    const reason = result.stderr.trim().slice(0, 1000);
    throw new NetworkError('Failed', `Cannot run ${command} ${args.join(' ')}: ${reason}`);
  };
  const inside = (namespace: string | undefined) =>
    namespace === undefined ? [] : ['-n', namespace];
  const links = async (namespace: string | undefined, signal?: AbortSignal) => {
    const text = await run('ip', [...inside(namespace), '-json', 'link', 'show'], { signal });
    return JSON.parse(text) as IpLink[];
  };
  const kernel: Kernel = {
    namespaces: () => readdir(NAMESPACES).catch(() => []),
    namespaceExists: (name) => exists(`${NAMESPACES}/${name}`),
    addNamespace: async (name) => void (await run('ip', ['netns', 'add', name])),
    async deleteNamespace(name) {
      if (await kernel.namespaceExists(name)) await run('ip', ['netns', 'delete', name]);
    },
    async ip(namespace, lines, signal) {
      const input = lines.map((line) => `${line}\n`).join('');
      await run('ip', [...inside(namespace), '-batch', '-'], { input, signal });
    },
    async nft(namespace, rules, signal) {
      const options = { input: rules, signal };
      if (namespace === undefined) await run('nft', ['-f', '-'], options);
      else await run('ip', ['netns', 'exec', namespace, 'nft', '-f', '-'], options);
    },
    async table(namespace, name) {
      const inNamespace = namespace === undefined ? [] : ['ip', 'netns', 'exec', namespace];
      const [command = 'nft', ...args] = [...inNamespace, 'nft', 'list', 'table', 'inet', name];
      const result = await exec(command, args, { timeoutMs: COMMAND_TIMEOUT_MS });
      return result.exitCode === 0 ? result.stdout : '';
    },
    async devices(namespace, signal) {
      return new Set((await links(namespace, signal)).map((link) => link.ifname));
    },
    async deleteDevice(namespace, name) {
      const args = [...inside(namespace), 'link', 'delete', 'dev', name];
      const result = await exec('ip', args, { timeoutMs: COMMAND_TIMEOUT_MS });
      if (result.exitCode === 0 || result.stderr.includes('Cannot find device')) return;
      throw new NetworkError('Failed', `Cannot delete device "${name}": ${result.stderr.trim()}`);
    },
    async switchOn(namespace, settings) {
      const present: string[] = [];
      for (const setting of settings) {
        if (await exists(`/proc/sys/${setting}`)) present.push(`/proc/sys/${setting}`);
      }
      await run('ip', ['netns', 'exec', namespace, 'tee', ...present], { input: '1' });
    },
    async addresses() {
      const text = await run('ip', ['-json', '-4', 'addr', 'show']);
      const devices = JSON.parse(text) as { addr_info: { local: string }[] }[];
      return new Set(devices.flatMap((device) => device.addr_info.map((info) => info.local)));
    },
    async uplinks() {
      const routes = await run('ip', ['-json', '-4', 'route', 'show', 'default']);
      const names = new Set((JSON.parse(routes) as { dev: string }[]).map((route) => route.dev));
      const all = await links(undefined);
      return all.filter((l) => names.has(l.ifname)).map((l) => ({ name: l.ifname, mtu: l.mtu }));
    },
    async isForwarding(device) {
      return (await readFile(forwardingFile(device), 'utf8')).trim() === '1';
    },
    setForwarding: (device, on) => writeFile(forwardingFile(device), on ? '1' : '0'),
  };
  return kernel;
}

/** Reads and writes the namespace of the calling process. */
function forwardingFile(device: string): string {
  return `/proc/sys/net/ipv4/conf/${device}/forwarding`;
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
