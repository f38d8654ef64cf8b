import { createHash } from 'node:crypto';
import { copyFile, link, mkdir, readFile, readdir, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { kernelNameProblem } from '../../api/kernels.ts';
import type { Clock } from '../../base/clock.ts';
import { readFileIfExists, syncDirectory, writeFileAtomic } from '../../base/files.ts';
import { nameSuffix } from '../../base/random.ts';
import type { Random } from '../../base/random.ts';
import { guestFiles, writeGuestFiles } from './files.ts';
import type { GuestFiles } from './files.ts';
import { initArchive } from './initrd.ts';
import { KernelError } from './store.ts';
import type { Kernel, KernelContent, KernelFacts, KernelStore } from './store.ts';

/** The kernel that set-up unpacked. It lies outside of the store. */
export interface BuiltInKernel {
  name: string;
  release: string;
  origin: string;
  kernelPath: string;
  initrdPath: string;
}

export interface KernelStoreOptions {
  /**
   * Owned by the store; made where it is missing:
   *
   *   <id>/vmlinux, initrd, modules, config, kernel.json
   *   names/<name>      holds an id
   *   default           holds a name
   *   .new-…, .old-…    on the way in and out, of the process whose number they bear
   */
  directory: string;
  builtIn: BuiltInKernel;
  /** The guest's PID 1. Where it is another than that of a stored kernel, that one gets it. */
  hyperstartPath: string;
  clock: Clock;
  random: Random;
}

/** More than a node's people can tell apart. */
const KERNELS_MAX = 32;
/** Of all of them: a slip of somebody who imports in a loop does not fill the disk. */
const STORE_BYTES_MAX = 2 * 2 ** 30;
const ACQUIRE_ATTEMPTS_MAX = 5;
const ID = /^[0-9a-f]{64}$/;
const PASSING = /^\.(?:new|old)-(\d+)-/;

interface KernelRecord extends KernelFacts {
  version: 1;
  importedAtMs: number;
  hasModules: boolean;
  /** Of the hyperstart in `initrd`. */
  hyperstartDigest: string;
}

/**
 * A store of directories. Every step of a change leaves a store that is right, for whoever reads it
 * meanwhile and after a kill at any point: a kernel appears and goes by one rename, names and the
 * default are files of their own that are replaced, and a pod has links of its own to what it was
 * started with. The number of these links is the number of pods.
 */
export async function openKernelStore(options: KernelStoreOptions): Promise<KernelStore> {
  const store = new DiskKernelStore(options);
  await store.open();
  return store;
}

class DiskKernelStore implements KernelStore {
  readonly #options: KernelStoreOptions;
  readonly #root: string;
  readonly #names: string;
  readonly #default: string;

  constructor(options: KernelStoreOptions) {
    this.#options = options;
    this.#root = options.directory;
    this.#names = join(this.#root, 'names');
    this.#default = join(this.#root, 'default');
  }

  async open(): Promise<void> {
    await mkdir(this.#names, { recursive: true, mode: 0o755 });
    for (const entry of await readdir(this.#root)) {
      const pid = Number(PASSING.exec(entry)?.[1] ?? 0);
      if (pid > 0 && !isAlive(pid)) await rm(join(this.#root, entry), LEFT);
    }
    const hyperstart = await readFile(this.#options.hyperstartPath);
    for (const id of await this.#ids()) await this.#refresh(id, hyperstart);
  }

  /** Gives a kernel the hyperstart of today. VMs that start from the old file have links to it. */
  async #refresh(id: string, hyperstart: Buffer): Promise<void> {
    const record = await this.#record(id);
    const hyperstartDigest = digestOf(hyperstart);
    if (!record || record.hyperstartDigest === hyperstartDigest) return;
    const directory = join(this.#root, id);
    const modules = record.hasModules ? await readFile(join(directory, 'modules')) : EMPTY;
    const initrd = Buffer.concat([initArchive(hyperstart), modules]);
    await this.#replace(join(directory, 'initrd'), initrd);
    const text = JSON.stringify({ ...record, hyperstartDigest } satisfies KernelRecord);
    await this.#replace(join(directory, 'kernel.json'), text);
  }

  async list(): Promise<Kernel[]> {
    const names = await this.#namesById();
    const defaultName = (await this.#defaultName()) ?? this.#options.builtIn.name;
    const stored: Kernel[] = [];
    for (const id of await this.#ids()) {
      const kernel = await this.#kernel(id, names.get(id) ?? [], defaultName);
      if (kernel) stored.push(kernel);
    }
    // A default that has been lost is not one: pods get the one that is always there.
    const isLost = !stored.some(({ isDefault }) => isDefault);
    const byName = ({ names: [name] }: Kernel) => name ?? '~';
    return [
      await this.#builtIn(isLost),
      ...stored.sort((a, b) => (byName(a) < byName(b) ? -1 : 1)),
    ];
  }

  async get(name: string): Promise<Kernel> {
    const kernels = await this.list();
    const found =
      kernels.find(({ names }) => names.includes(name)) ??
      kernels.find(({ id, isBuiltIn }) => !isBuiltIn && id === name);
    if (found) return found;
    // What else there is is not for everybody to know: the pod may be a tenant's.
    throw new KernelError('NotFound', `Cannot find kernel "${name}" on this node`);
  }

  async default(): Promise<Kernel> {
    const kernels = await this.list();
    return kernels.find(({ isDefault }) => isDefault) ?? this.#builtIn(true);
  }

  async import(
    name: string,
    content: KernelContent,
    { replace = false }: { replace?: boolean } = {},
  ): Promise<Kernel> {
    this.#checkName(name);
    const id = digestOf(content.vmlinux, content.modules);
    const before = await readFileIfExists(join(this.#names, name));
    const isOthers = before !== undefined && before !== id && (await this.#record(before));
    if (isOthers && !replace) {
      const way = 'choose another name, or remove it first';
      throw new KernelError('Exists', `Cannot import kernel "${name}": there is one, ${way}`);
    }
    if (!(await this.#record(id))) await this.#add(id, content);
    await this.#replace(join(this.#names, name), id);
    if (isOthers) await this.#removeUnused(before);
    return this.get(name);
  }

  async use(name: string): Promise<Kernel> {
    const kernel = await this.get(name);
    const chosen = kernel.names.includes(name) ? name : kernel.names[0];
    if (chosen === undefined) {
      throw new KernelError('Invalid', `Cannot use kernel "${name}": it has no name any more`);
    }
    if (kernel.isBuiltIn) await rm(this.#default, { force: true });
    else await this.#replace(this.#default, chosen);
    return this.get(name);
  }

  async remove(name: string): Promise<void> {
    const kernel = await this.get(name);
    const refuse = (why: string, reason: 'InUse' | 'BuiltIn' = 'InUse'): never => {
      throw new KernelError(reason, `Cannot remove kernel "${name}": ${why}`);
    };
    if (kernel.isBuiltIn) refuse('it is the one of set-up, which is always there', 'BuiltIn');
    if ((await this.#defaultName()) === name) {
      refuse('it is the default, choose another one with "kernel use" first');
    }
    const others = kernel.names.filter((one) => one !== name);
    if (name === kernel.id && others.length > 0) refuse(`its name is ${others.join(', ')}`);
    if (others.length === 0) {
      if (kernel.podCount) refuse(`${kernel.podCount} pods of this node run it`);
      if (kernel.isDefault) refuse('it is the default');
    }
    const hasName = kernel.names.includes(name);
    if (hasName) await rm(join(this.#names, name), { force: true });
    if (others.length > 0) return;
    const podCount = await this.#removeUnused(kernel.id);
    if (podCount === 0) return;
    // One has come meanwhile.
    if (hasName) await this.#replace(join(this.#names, name), kernel.id);
    refuse(`${podCount} pods of this node run it`);
  }

  async acquire(name: string | undefined, directory: string): Promise<GuestFiles> {
    for (let attempt = 1; ; attempt += 1) {
      const kernel = name === undefined ? await this.default() : await this.get(name);
      const { kernelPath, initrdPath, kernelArguments, isBuiltIn } = kernel;
      if (isBuiltIn) return { kernelPath, initrdPath, kernelArguments };
      try {
        const files = guestFiles(directory);
        await linkAnew(kernelPath, files.kernelPath);
        await linkAnew(initrdPath, files.initrdPath);
        return { ...files, kernelArguments };
      } catch (error) {
        // Somebody is removing it: it is gone then, or back because of the first link.
        const isGone = (error as NodeJS.ErrnoException).code === 'ENOENT';
        if (!isGone || attempt === ACQUIRE_ATTEMPTS_MAX) throw error;
      }
    }
  }

  #checkName(name: string): void {
    const problem = kernelNameProblem(name);
    if (problem) throw new KernelError('Invalid', `Invalid kernel name "${name}": ${problem}`);
    if (name !== this.#options.builtIn.name) return;
    throw new KernelError('BuiltIn', `Cannot import kernel "${name}": that is the one of set-up`);
  }

  async #add(id: string, content: KernelContent): Promise<void> {
    await this.#makeRoom(content);
    const { hyperstartPath } = this.#options;
    const hyperstart = await readFile(hyperstartPath);
    const directory = this.#passing('new');
    await mkdir(directory, { mode: 0o755 });
    try {
      await writeGuestFiles(directory, content, hyperstartPath);
      const { modules, config } = content;
      if (modules.length > 0) await writeFileAtomic(join(directory, 'modules'), modules, DURABLE);
      if (config !== undefined) await writeFileAtomic(join(directory, 'config'), config, DURABLE);
      const { release, origin, buildKey } = content;
      const record: KernelRecord = {
        version: 1,
        release,
        origin,
        ...(buildKey === undefined ? {} : { buildKey }),
        importedAtMs: this.#options.clock.nowMs(),
        hasModules: content.modules.length > 0,
        hyperstartDigest: digestOf(hyperstart),
      };
      await writeFileAtomic(join(directory, 'kernel.json'), JSON.stringify(record), DURABLE);
      await this.#place(directory, join(this.#root, id), id);
      await syncDirectory(this.#root);
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  }

  async #place(from: string, to: string, id: string): Promise<void> {
    try {
      await rename(from, to);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOTEMPTY') throw error;
      // Another process was faster with the same; or what is there cannot be read.
      if (await this.#record(id)) return;
      await rm(to, { recursive: true });
      await rename(from, to);
    }
  }

  async #makeRoom({ vmlinux, modules }: KernelContent): Promise<void> {
    const stored = (await this.list()).filter(({ isBuiltIn }) => !isBuiltIn);
    const bytes = stored.reduce((sum, kernel) => sum + kernel.bytes, 0);
    const wanted = vmlinux.length + 2 * modules.length;
    const full = (what: string) =>
      new KernelError('TooMany', `Cannot import the kernel: ${what}. Remove one that nobody needs`);
    if (stored.length >= KERNELS_MAX) throw full(`${KERNELS_MAX} are here already`);
    if (bytes + wanted > STORE_BYTES_MAX) {
      throw full(`it takes ${wanted} bytes, and ${bytes} of ${STORE_BYTES_MAX} are taken`);
    }
  }

  /** @returns how many pods run it; it is gone if none does */
  async #removeUnused(id: string): Promise<number> {
    const directory = join(this.#root, id);
    const passing = this.#passing('old');
    try {
      const podCount = await this.#podCount(id);
      if (podCount > 0) return podCount;
      await rename(directory, passing);
    } catch (error) {
      // Another process has removed it.
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return 0;
      throw error;
    }
    // Who has linked it until now has it; nobody can any more.
    const { nlink } = await stat(join(passing, 'vmlinux'));
    if (nlink > 1) {
      await rename(passing, directory);
      return nlink - 1;
    }
    await rm(passing, { recursive: true });
    return 0;
  }

  async #podCount(id: string): Promise<number> {
    return (await stat(join(this.#root, id, 'vmlinux'))).nlink - 1;
  }

  async #kernel(id: string, names: string[], defaultName: string): Promise<Kernel | undefined> {
    const record = await this.#record(id);
    if (!record) return undefined;
    const directory = join(this.#root, id);
    const { release, origin, buildKey, importedAtMs, hasModules } = record;
    // It may be removed while it is looked at.
    const podCount = await this.#podCount(id).catch(() => undefined);
    if (podCount === undefined) return undefined;
    return {
      id,
      names,
      release,
      origin,
      ...(buildKey === undefined ? {} : { buildKey }),
      isDefault: names.includes(defaultName),
      isBuiltIn: false,
      bytes: await sizeOf(directory),
      podCount,
      importedAtMs,
      ...guestFiles(directory, hasModules),
    };
  }

  async #builtIn(isDefault: boolean): Promise<Kernel> {
    const { name, release, origin, kernelPath, initrdPath } = this.#options.builtIn;
    const [kernel, initrd] = await Promise.all([stat(kernelPath), stat(initrdPath)]);
    return {
      id: '',
      names: [name],
      release,
      origin,
      isDefault,
      isBuiltIn: true,
      bytes: kernel.size + initrd.size,
      podCount: undefined,
      importedAtMs: kernel.mtimeMs,
      ...{ kernelPath, initrdPath, kernelArguments: [] },
    };
  }

  async #ids(): Promise<string[]> {
    return (await readdir(this.#root)).filter((entry) => ID.test(entry));
  }

  async #namesById(): Promise<Map<string, string[]>> {
    const names = new Map<string, string[]>();
    for (const name of (await readdir(this.#names)).sort()) {
      if (kernelNameProblem(name)) continue;
      const id = await readFileIfExists(join(this.#names, name));
      if (id !== undefined) names.set(id, [...(names.get(id) ?? []), name]);
    }
    return names;
  }

  #defaultName(): Promise<string | undefined> {
    return readFileIfExists(this.#default);
  }

  async #record(id: string): Promise<KernelRecord | undefined> {
    if (!ID.test(id)) return undefined;
    const text = await readFileIfExists(join(this.#root, id, 'kernel.json'));
    if (text === undefined) return undefined;
    const record = parseRecord(text);
    return record?.version === 1 ? record : undefined;
  }

  /** On the way it bears our number, so that it is found by whoever opens the store after us. */
  #replace(path: string, content: string | Uint8Array): Promise<void> {
    return writeFileAtomic(path, content, { ...DURABLE, temporaryPath: this.#passing('new') });
  }

  #passing(kind: 'new' | 'old'): string {
    return join(this.#root, `.${kind}-${process.pid}-${nameSuffix(this.#options.random, 8)}`);
  }
}

const EMPTY = Buffer.alloc(0);
/** Another process may be removing the same. */
const LEFT = { recursive: true, force: true };
const DURABLE = { mode: 0o644, sync: true };

/** A record that cannot be read is none: the kernel is not used, and can be imported again. */
function parseRecord(text: string): KernelRecord | undefined {
  try {
    return JSON.parse(text) as KernelRecord;
  } catch {
    return undefined;
  }
}

function digestOf(...parts: Buffer[]): string {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(String(part.length)).update(':').update(part);
  return hash.digest('hex');
}

async function sizeOf(directory: string): Promise<number> {
  const entries = await readdir(directory).catch(() => [] as string[]);
  const sizes = entries.map((entry) => stat(join(directory, entry)).catch(() => undefined));
  return (await Promise.all(sizes)).reduce((sum, found) => sum + (found?.size ?? 0), 0);
}

/** A link where that is possible; where the pods are on another file system, a copy. */
async function linkAnew(from: string, to: string): Promise<void> {
  await rm(to, { force: true });
  await link(from, to).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'EXDEV') throw error;
    return copyFile(from, to);
  });
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}
