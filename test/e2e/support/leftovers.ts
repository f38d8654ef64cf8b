import { readFile, readdir, stat } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { systemClock } from '../../../src/base/clock.ts';
import { execute, run } from '../../../src/base/exec.ts';
import { cgroupParent } from '../../../src/cli/hypervisor.ts';
import { dataPaths } from '../../../src/cli/config.ts';
import { namesOf } from '../../../src/network/linux/commands.ts';
import { detectCgroups } from '../../../src/hyperd/vmm/qemu/cgroup.ts';

/**
 * Everything that one cluster has on this machine, found by looking at the machine and not by
 * asking the cluster. Each kind is a sorted list of names, so two counts can be compared.
 */
export interface HostState {
  /** Programs that are run for the cluster's VMs: jails and emulators. */
  processes: string[];
  namespaces: string[];
  /** Devices of the host and of the cluster's network namespaces, taps among them. */
  devices: string[];
  /** nftables tables, and in the networks' ones the elements of their sets. */
  rules: string[];
  groups: string[];
  mounts: string[];
  sockets: string[];
  /** In the data directory, without logs and the server's store. */
  files: string[];
}

export const NOTHING: Omit<HostState, 'files'> = {
  processes: [],
  namespaces: [],
  devices: [],
  rules: [],
  groups: [],
  mounts: [],
  sockets: [],
};

/** Directories whose content is not hyperd's, or only text about what happened. */
const OTHERS = ['log', 'server', 'node'];
/** Templates stay for the pods of their owner that come next: they are bounded, and no pod's. */
const TEMPLATES = 'hyperd/templates/';
const TEMPLATE_WAIT_MS = 60_000;
/** The VMs' own user ids begin here (`src/hyperd/supply/uids.ts`). */
const VM_UID_MIN = 1_000_000_000;

/**
 * @param vmUids user ids under which VMs of the cluster have run: whatever still runs as one of
 *   them is the cluster's, whatever it calls itself
 */
export async function hostState(dataDir: string, vmUids: Iterable<number>): Promise<HostState> {
  await untilTemplatesAreMade(dataDir);
  const paths = dataPaths(dataDir);
  const names = namesOf(paths.network);
  const namespaces = (await readdir('/run/netns').catch(() => [])).filter((name) =>
    name.startsWith(`hn${names.scope}`),
  );
  return sorted({
    processes: await processes(dataDir, new Set(vmUids)),
    namespaces,
    devices: [
      ...(await devices([])).filter((name) => name.startsWith(`hn${names.scope}`)),
      ...(await each(namespaces, (namespace) => devices(['-n', namespace]))),
    ],
    rules: [
      ...(await run('nft', ['list', 'tables'])).split('\n').filter((t) => t.includes(names.table)),
      ...(await each(namespaces, setElements)),
    ],
    groups: await groups(cgroupParent(paths)),
    mounts: (await readFile('/proc/self/mountinfo', 'utf8'))
      .split('\n')
      .filter((line) => line.includes(dataDir)),
    sockets: await sockets(dataDir),
    files: (await files(dataDir)).filter((path) => !path.startsWith(TEMPLATES)),
  });
}

/** Made in the background after the first pod of a kind: for that long its VM is nobody's leftover. */
async function untilTemplatesAreMade(dataDir: string): Promise<void> {
  const deadlineMs = systemClock.monotonicMs() + TEMPLATE_WAIT_MS;
  const directory = join(dataPaths(dataDir).hyperd, 'vms');
  for (;;) {
    const ids = await readdir(directory).catch(() => []);
    const isMaking = ids.some((id) => id.startsWith('template-'));
    if (!isMaking || systemClock.monotonicMs() > deadlineMs) return;
    await systemClock.sleep(50);
  }
}

/** The user ids of the VMs that there are now. */
export async function vmUids(dataDir: string): Promise<number[]> {
  const directory = join(dataPaths(dataDir).hyperd, 'pods');
  const uids = await each(await readdir(directory), async (id) => {
    const text = await readFile(join(directory, id, 'pod.json'), 'utf8').catch(() => '');
    return text === '' ? [] : [(JSON.parse(text) as { uid: number }).uid];
  });
  return uids;
}

function sorted(state: HostState): HostState {
  for (const list of Object.values(state) as string[][]) list.sort();
  return state;
}

async function each<I, O>(items: I[], work: (item: I) => Promise<O[]>): Promise<O[]> {
  return (await Promise.all(items.map(work))).flat();
}

async function processes(dataDir: string, uids: Set<number>): Promise<string[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  return each(pids, async (pid) => {
    const command = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
    const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '');
    const uid = Number(/^Uid:\t(\d+)/m.exec(status)?.[1] ?? -1);
    const isComponent = /\/src\/cli\/(hyperctl\/)?main\.ts/.test(command);
    const isOurs = uids.has(uid) || (command.includes(dataDir) && !isComponent);
    if (!isOurs || command === '') return [];
    return [`${uid >= VM_UID_MIN ? 'vm' : 'host'} ${command.replaceAll('\0', ' ').slice(0, 80)}`];
  });
}

async function devices(args: string[]): Promise<string[]> {
  const result = await execute('ip', [...args, '-json', 'link', 'show']);
  if (result.exitCode !== 0) return [];
  return (JSON.parse(result.stdout) as { ifname: string }[]).map(({ ifname }) => ifname);
}

async function setElements(namespace: string): Promise<string[]> {
  const listed = await execute('ip', ['netns', 'exec', namespace, 'nft', '-j', 'list', 'ruleset']);
  if (listed.exitCode !== 0) return [];
  const { nftables } = JSON.parse(listed.stdout) as {
    nftables: { set?: { name: string; elem?: unknown[] } }[];
  };
  return nftables.flatMap(({ set }) =>
    // `flows` forgets by itself what has ended.
    set && set.name !== 'flows'
      ? (set.elem ?? []).map((e) => `${set.name} ${JSON.stringify(e)}`)
      : [],
  );
}

/** Paths, each once: clients come and go. */
async function sockets(dataDir: string): Promise<string[]> {
  const lines = (await readFile('/proc/net/unix', 'utf8')).split('\n');
  const paths = lines.map((line) => line.split(' ').at(-1) ?? '');
  return [...new Set(paths.filter((path) => path.startsWith(dataDir)))];
}

async function groups(parent: string): Promise<string[]> {
  const { controllers } = await detectCgroups(parent);
  const roots = new Set(Object.values(controllers).map(({ path }) => join(path, parent)));
  return each([...roots], async (root) => {
    const entries = await readdir(root, { withFileTypes: true }).catch(() => undefined);
    if (!entries) return [];
    const children = entries.filter((entry) => entry.isDirectory()).map(({ name }) => name);
    return [root, ...children.map((name) => join(root, name))];
  });
}

/** Of all owners' templates, which are no pod's and are not in a `HostState`. */
export async function templateFiles(dataDir: string): Promise<string[]> {
  return (await files(dataDir)).filter((path) => path.startsWith(TEMPLATES));
}

async function files(dataDir: string): Promise<string[]> {
  const found: string[] = [];
  const walk = async (directory: string): Promise<void> => {
    // What goes meanwhile is not left over.
    for (const entry of await readdir(directory, { withFileTypes: true }).catch(() => [])) {
      const path = join(directory, entry.name);
      if (directory === dataDir && OTHERS.includes(entry.name)) continue;
      found.push(relative(dataDir, path));
      if (entry.isDirectory() && (await stat(path).catch(() => undefined))) await walk(path);
    }
  };
  await walk(dataDir);
  return found;
}
