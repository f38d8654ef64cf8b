/**
 * Kernel modules for the guest: which ones, in which order, and without what only costs time
 * when they are loaded.
 */

/**
 * What the guest needs, by name. Those of them that are built into a kernel are skipped; what
 * they depend on is added. The first group opens the control channel.
 */
export const GUEST_MODULES = [
  'virtio_mmio',
  'virtio_pci',
  'virtio_console',
  'virtio_blk',
  'virtio_scsi',
  'sd_mod',
  'virtio_net',
  'overlay',
  'erofs',
  // The checksum that erofs asks the crypto API for by name; no dependency tells of it.
  'crc32c_generic',
] as const;

/** What a guest does without where its kernel has not got it. */
export const OPTIONAL_MODULES = ['virtio_balloon'] as const;

/** What hyperstart gives to modules; the kernel's command line is only for what is built in. */
export const MODULE_PARAMETERS: Record<string, string> = {
  // Asking 256 targets for disks that are not there takes a tenth of a start.
  scsi_mod: 'scan=manual',
};

const SIGNATURE_TRAILER = '~Module signature appended~\n';
/** `struct module_signature` before the trailer; its last four bytes are the length, big endian. */
const SIGNATURE_INFO_BYTES = 12;

const ELF_SECTION_HEADERS_OFFSET = 40;
const ELF_SECTION_HEADER_BYTES = 64;

/** Names of the modules that this one needs, from its `.modinfo` section. */
export function moduleDependencies(module: Buffer): string[] {
  const match = /(?:^|\0)depends=([^\0]*)\0/.exec(module.toString('latin1'));
  return (match?.[1] ?? '')
    .split(',')
    .filter((name) => name !== '')
    .map(canonicalName);
}

/** Files call a module with dashes or underscores; the kernel takes both for the same. */
export function canonicalName(name: string): string {
  return name.replaceAll('-', '_');
}

/**
 * The wanted modules and all that they need, each after what it depends on. `load` gives a
 * module's file, or undefined where it is built in or absent.
 * @throws Error on a dependency that is nowhere, or a circle
 */
export function orderModules(
  wanted: readonly string[],
  load: (name: string) => Buffer | undefined,
  isBuiltIn: (name: string) => boolean,
): { name: string; content: Buffer }[] {
  const ordered = new Map<string, Buffer>();
  const visit = (name: string, path: string[]) => {
    if (ordered.has(name) || isBuiltIn(name)) return;
    if (path.includes(name)) throw new Error(`Cannot order modules: "${name}" needs itself`);
    const content = load(name);
    if (!content) {
      const asker = path.at(-1);
      throw new Error(`Cannot find module "${name}"${asker ? `, needed by "${asker}"` : ''}`);
    }
    for (const needed of moduleDependencies(content)) visit(needed, [...path, name]);
    ordered.set(name, content);
  };
  for (const name of wanted) visit(canonicalName(name), []);
  return [...ordered].map(([name, content]) => ({ name, content }));
}

/**
 * The module without its signature, whose check is a public key operation, and with its type
 * information out of the kernel's sight, which would be parsed. The archive it goes into is what
 * the host gave to the VM: there is nobody in between to sign against.
 */
export function stripModule(module: Buffer): Buffer {
  const bytes = Buffer.from(withoutSignature(module));
  const headers = Number(bytes.readBigUInt64LE(ELF_SECTION_HEADERS_OFFSET));
  const namesIndex = bytes.readUInt16LE(62);
  const namesHeader = headers + namesIndex * ELF_SECTION_HEADER_BYTES;
  const namesStart = Number(bytes.readBigUInt64LE(namesHeader + 24));
  const namesEnd = namesStart + Number(bytes.readBigUInt64LE(namesHeader + 32));
  const names = bytes.subarray(namesStart, namesEnd);
  for (let at = names.indexOf('\0.BTF\0'); at >= 0; at = names.indexOf('\0.BTF\0', at + 1)) {
    names.write('.btf', at + 1, 'latin1');
  }
  return bytes;
}

function withoutSignature(module: Buffer): Buffer {
  const end = module.length - SIGNATURE_TRAILER.length;
  if (end < 0 || module.toString('latin1', end) !== SIGNATURE_TRAILER) return module;
  const signature = module.readUInt32BE(end - 4);
  return module.subarray(0, end - SIGNATURE_INFO_BYTES - signature);
}
