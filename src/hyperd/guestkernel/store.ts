import type { GuestFiles } from './files.ts';

/**
 * The kernels of a node, by name. One of them is the default, which pods get that name none. The
 * one that set-up unpacked is always there; others are built or imported.
 *
 * A store is shared by hyperd and by people's commands, in several processes at once.
 */
export interface KernelStore {
  /** The built-in one first, then by name; those without a name last. */
  list(): Promise<Kernel[]>;
  /**
   * @param name or, for one that has lost its name, its id
   * @throws KernelError NotFound
   */
  get(name: string): Promise<Kernel>;
  default(): Promise<Kernel>;
  /**
   * Takes a kernel in. The same content again is no error and gives it the name.
   * @throws KernelError Exists, where the name is another kernel's, unless it is to be replaced;
   *   Invalid, TooMany
   */
  import(name: string, content: KernelContent, options?: { replace?: boolean }): Promise<Kernel>;
  /** Makes it the default. Pods that run are not touched. */
  use(name: string): Promise<Kernel>;
  /** @throws KernelError InUse: it is the default, or pods run it; BuiltIn */
  remove(name: string): Promise<void>;
  /**
   * The files for a new VM, which stay as they are for as long as the directory is there, whatever
   * becomes of the store.
   * @param name undefined for the default
   * @param directory of the pod, on the file system of the store
   */
  acquire(name: string | undefined, directory: string): Promise<GuestFiles>;
}

/** With the store's own files: the same for as long as it is the same kernel and hyperstart. */
export interface Kernel extends KernelFacts, GuestFiles {
  /** Of the content: SHA-256, in hexadecimal. Empty for the built-in one. */
  id: string;
  /** None where a newer one has taken its name and pods still run it. */
  names: string[];
  isDefault: boolean;
  isBuiltIn: boolean;
  /** On disk; of the built-in one, too. */
  bytes: number;
  /** Pods on this node that were started with it; undefined for the built-in one. */
  podCount: number | undefined;
  importedAtMs: number;
}

/** What is told of a kernel that cannot be read out of its files. */
export interface KernelFacts {
  /** As `uname -r` says in the guest. */
  release: string;
  /** Where it is from, for people. */
  origin: string;
  /** What it was built from, to find it again instead of building it again. */
  buildKey?: string;
}

export interface KernelContent extends KernelFacts {
  vmlinux: Buffer;
  /** Archive of the modules that the guest loads; empty for a kernel that has what it needs. */
  modules: Buffer;
  /** Its `.config`, for people. */
  config?: string;
}

export type KernelErrorReason =
  'NotFound' | 'Invalid' | 'Exists' | 'InUse' | 'BuiltIn' | 'TooMany' | 'Refused';

/** What somebody asked of the store and cannot have. `message` says why. */
export class KernelError extends Error {
  override name = 'KernelError';
  readonly reason: KernelErrorReason;
  constructor(reason: KernelErrorReason, message: string) {
    super(message);
    this.reason = reason;
  }
}
