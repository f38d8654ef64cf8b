import { chmod, mkdir, readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Log } from '../../base/log.ts';
import { readFileIfExists, syncDirectory, writeFileAtomic } from '../../base/files.ts';
import { digestHex, isDigest } from './digest.ts';
import type { Digest } from './digest.ts';
import type { Image, ImageLease } from './store.ts';
import type { ImageAccess } from './access.ts';
import { createLock } from './locks.ts';

/**
 * Which images the node has, and who uses them. Survives a crash at any point: an image counts
 * once `images.json` names it, which happens after its disk is durable.
 *
 *   images.json             the images
 *   disks/<hex of id>.erofs
 *   leases/<hex of id>~<owner>   empty files, one for each user of a disk
 */
export interface Catalog {
  images(): ImageRecord[];
  find(imageId: string): ImageRecord | undefined;
  /** Adds or replaces by id, and moves the references it has away from other images. */
  put(record: ImageRecord): Promise<void>;
  /** Removes the image with its disk. */
  remove(imageId: string): Promise<void>;
  diskPath(imageId: string): string;
  /** What is wrong with the disk of an image: undefined when it is as it was made. */
  findDamage(record: ImageRecord): Promise<string | undefined>;
  /** Forgets an image whose disk is damaged, for it to be made again. VMs that run keep what they have. */
  forget(imageId: string): Promise<void>;
  leases(): ImageLease[];
  addLease(lease: ImageLease): Promise<void>;
  removeLease(lease: ImageLease): Promise<void>;
}

export interface ImageRecord extends Omit<Image, 'usedBy'> {
  /** Blobs of its layers. */
  layers: Digest[];
  access: ImageAccess;
  pulledAtMs: number;
  /** Owners of pods that have run it; see `users.ts`. @default none */
  usedBy?: string[];
  /** When its disk was written last. Absent in what an older version has made. */
  diskModifiedMs?: number;
}

const CATALOG_VERSION = 2;
/** As part of a file name. */
export const OWNER_CHARS_MAX = 120;
const OWNER = /^[a-zA-Z0-9][a-zA-Z0-9._-]*$/;

export function isOwner(text: string): boolean {
  return text.length <= OWNER_CHARS_MAX && OWNER.test(text);
}

/** Reads what is there and removes what a crash left half done. */
export async function openCatalog(directory: string, log: Log): Promise<Catalog> {
  const file = join(directory, 'images.json');
  const disks = join(directory, 'disks');
  const leaseDirectory = join(directory, 'leases');
  // Virtual machines open disks as other users: they may pass, and not look around.
  for (const path of [directory, disks]) {
    await mkdir(path, { recursive: true });
    await chmod(path, 0o711);
  }
  await mkdir(leaseDirectory, { recursive: true, mode: 0o700 });
  const diskPath = (imageId: string) => join(disks, `${digestHex(imageId)}.erofs`);
  const leasePath = ({ imageId, owner }: ImageLease) =>
    join(leaseDirectory, `${digestHex(imageId)}~${owner}`);

  let records = new Map<string, ImageRecord>();
  for (const record of await readRecords(file, log)) {
    const problem = await findDamage(diskPath(record.id), record);
    if (problem === undefined) records.set(record.id, record);
    else log.warn('image has lost its disk', { image: record.id, problem });
  }
  const known = new Set([...records.keys()].map((id) => `${digestHex(id)}.erofs`));
  for (const name of await readdir(disks)) {
    if (!known.has(name)) await rm(join(disks, name), { force: true });
  }
  const leases = new Map<string, ImageLease>();
  const idByHex = new Map([...records.keys()].map((id) => [digestHex(id), id]));
  for (const name of await readdir(leaseDirectory)) {
    const [hex = '', owner = ''] = name.split('~');
    const imageId = idByHex.get(hex);
    if (imageId === undefined) await rm(join(leaseDirectory, name), { force: true });
    else leases.set(join(leaseDirectory, name), { imageId, owner });
  }

  const lock = createLock();
  /** Writers follow each other; each writes what is true when its turn comes. */
  const change = async (edit: (next: Map<string, ImageRecord>) => void): Promise<void> => {
    const release = await lock('write');
    try {
      const next = new Map(records);
      edit(next);
      const document = { version: CATALOG_VERSION, images: [...next.values()] };
      await writeFileAtomic(file, JSON.stringify(document), { sync: true });
      records = next;
    } finally {
      release();
    }
  };

  return {
    images: () => [...records.values()],
    find: (imageId) => records.get(imageId),
    put: (record) => change((next) => putRecord(next, record)),
    async remove(imageId) {
      await change((next) => void next.delete(imageId));
      await rm(diskPath(imageId), { force: true });
    },
    diskPath,
    findDamage: (record) => findDamage(diskPath(record.id), record),
    forget: (imageId) => change((next) => void next.delete(imageId)),
    leases: () => [...leases.values()],
    async addLease(lease) {
      const path = leasePath(lease);
      leases.set(path, lease);
      await writeFileAtomic(path, '');
      await syncDirectory(leaseDirectory);
    },
    async removeLease(lease) {
      const path = leasePath(lease);
      leases.delete(path);
      await rm(path, { force: true });
    },
  };
}

/** Nobody writes to a disk once it is made: one that was written to is not what it was. */
async function findDamage(
  path: string,
  { diskBytes, diskModifiedMs }: ImageRecord,
): Promise<string | undefined> {
  const info = await stat(path).catch(() => undefined);
  if (info === undefined) return 'its disk is gone';
  if (info.size !== diskBytes) return `its disk has ${info.size} bytes, wanted ${diskBytes}`;
  const isWritten = diskModifiedMs !== undefined && info.mtimeMs !== diskModifiedMs;
  return isWritten ? 'its disk was written to after it was made' : undefined;
}

function putRecord(records: Map<string, ImageRecord>, record: ImageRecord): void {
  const moved = new Set(record.references);
  for (const [id, other] of records) {
    if (id === record.id || !other.references.some((reference) => moved.has(reference))) continue;
    const references = other.references.filter((reference) => !moved.has(reference));
    records.set(id, { ...other, references });
  }
  records.set(record.id, record);
}

async function readRecords(file: string, log: Log): Promise<ImageRecord[]> {
  const text = await readFileIfExists(file);
  if (text === undefined) return [];
  try {
    const document = JSON.parse(text) as { version: number; images: ImageRecord[] };
    if (document.version !== CATALOG_VERSION) {
      throw new Error(`it has version ${document.version}, want ${CATALOG_VERSION}`);
    }
    return document.images.filter((record) => isDigest(record.id));
  } catch (error) {
    // Images can be pulled again: a node that does not start helps nobody.
    log.error('cannot read the image catalog, starting with none', { file, error });
    return [];
  }
}
