import { ImageError } from './store.ts';
import { createTarReader, malformed, showName } from './tar.ts';
import type { TarEntry, TarReader } from './tar.ts';
import { newNode, removeLowerChildren, splitPath, walkToDirectory, whiteOut } from './tree.ts';
import type { NodeType, TreeNode } from './tree.ts';

/** Whiteouts of the OCI image specification: names in a layer that remove names of earlier ones. */
const WHITEOUT_PREFIX = '.wh.';
const OPAQUE_WHITEOUT = '.wh..wh..opq';
/** Other names of this form are bookkeeping of the file system that invented whiteouts. */
const WHITEOUT_META_PREFIX = '.wh..wh.';

/** Of all layers of an image together; each entry costs memory while the disk is made. */
const IMAGE_ENTRIES_MAX = 500_000;
/**
 * Of all entries together: names, link targets and extended attributes, which are kept in memory.
 * Attributes lie outside of the heap whose size ends the thread that reads them.
 */
const IMAGE_METADATA_BYTES_MAX = 256 << 20;
/** Of one inode: Linux' XATTR_SIZE_MAX for one value, here for all. */
const XATTR_BYTES_MAX = 64 * 1024 - 4096;
const XATTR_NAME_BYTES_MAX = 255;
/** Path components that symbolic links may add over all entries: following them costs time. */
const LINK_STEPS_MAX = 10_000_000;
/** Device numbers as Linux encodes them in 32 bits. */
const DEVICE_MAJOR_MAX = 0xfff;
const DEVICE_MINOR_MAX = 0xfffff;

/** What reaches the disk. `trusted.` steers overlay mounts, so it is not an image's to set. */
const XATTR_NAMESPACES = ['user.', 'security.'];
const XATTR_NAMES = ['system.posix_acl_access', 'system.posix_acl_default'];

export interface LayerTarget {
  root: TreeNode;
  /** Entries of all layers so far. */
  entryCount: number;
  entriesMax: number;
  /** Bytes of names, link targets and extended attributes so far. */
  metadataBytes: number;
  metadataBytesMax: number;
  /** Path components that symbolic links have added so far. */
  linkSteps: number;
}

/** Where content of files goes: an append-only file of its own for each layer. */
export interface Spool {
  /** Bytes so far. */
  readonly length: number;
  append(chunk: Buffer): void;
}

export function newTarget(
  entriesMax = IMAGE_ENTRIES_MAX,
  metadataBytesMax = IMAGE_METADATA_BYTES_MAX,
): LayerTarget {
  const none = { entryCount: 0, metadataBytes: 0, linkSteps: 0 };
  return { root: newNode('directory', -1), entriesMax, metadataBytesMax, ...none };
}

/**
 * A reader that unites one more layer with the tree. `layer` counts from 0 and grows.
 * @throws ImageError Malformed, TooLarge (from the reader's `push` and `end`)
 */
export function createLayerReader(target: LayerTarget, layer: number, spool: Spool): TarReader {
  const apply = createApplier(target, layer);
  return createTarReader({
    onEntry: (entry) => apply(entry, spool.length),
    onData: (chunk) => spool.append(chunk),
  });
}

function createApplier(
  target: LayerTarget,
  layer: number,
): (entry: TarEntry, offset: number) => void {
  const { root } = target;
  const count = (): void => {
    target.entryCount += 1;
    if (target.entryCount > target.entriesMax) {
      throw new ImageError('TooLarge', `image has more than ${target.entriesMax} files`);
    }
  };
  const onFollow = (steps: number): void => {
    target.linkSteps += steps;
    if (target.linkSteps > LINK_STEPS_MAX) {
      throw new ImageError('TooLarge', 'image has too many paths through symbolic links');
    }
  };
  const find = (parts: string[]) =>
    walkToDirectory(root, parts, { layer, create: false, onFollow });
  const make = (parts: string[], mtimeSec: number) => {
    const onCreate = (directory: TreeNode): void => {
      count();
      directory.mtimeSec = mtimeSec;
    };
    return walkToDirectory(root, parts, { layer, create: true, onCreate, onFollow }) as TreeNode;
  };
  return (entry, offset) => {
    count();
    countMetadata(target, entry);
    const parts = splitPath(entry.name);
    const name = parts.pop();
    if (name === undefined) {
      if (entry.type !== 'directory') {
        throw malformed(`${showName(entry.name)} is the image's root but not a directory`);
      }
      setAttributes(root, entry, layer);
    } else if (name.startsWith(WHITEOUT_PREFIX)) {
      applyWhiteout(find(parts), name, layer);
    } else if (parts[0]?.startsWith(WHITEOUT_META_PREFIX)) {
      // Below a directory of bookkeeping: nothing of the image.
    } else if (entry.type === 'link') {
      const linked = findLinkTarget(entry, find);
      make(parts, entry.mtimeSec).children.set(name, linked);
    } else {
      addEntry(make(parts, entry.mtimeSec), name, entry.type, entry, layer, offset);
    }
  };
}

function countMetadata(target: LayerTarget, entry: TarEntry): void {
  target.metadataBytes += entry.name.length + entry.linkName.length;
  for (const [name, value] of entry.xattrs ?? [])
    target.metadataBytes += name.length + value.length;
  if (target.metadataBytes <= target.metadataBytesMax) return;
  throw new ImageError(
    'TooLarge',
    `names, link targets and extended attributes of the image have more than ` +
      `${target.metadataBytesMax} bytes`,
  );
}

function addEntry(
  parent: TreeNode,
  name: string,
  type: NodeType,
  entry: TarEntry,
  layer: number,
  offset: number,
): void {
  const existing = parent.children.get(name);
  if (type === 'directory' && existing?.type === 'directory') {
    setAttributes(existing, entry, layer);
    return;
  }
  const node = newNode(type, layer);
  setAttributes(node, entry, layer);
  node.offset = offset;
  parent.children.set(name, node);
}

function applyWhiteout(directory: TreeNode | undefined, name: string, layer: number): void {
  if (name === OPAQUE_WHITEOUT) {
    if (directory) removeLowerChildren(directory, layer);
    return;
  }
  if (name.startsWith(WHITEOUT_META_PREFIX)) return;
  const hidden = name.slice(WHITEOUT_PREFIX.length);
  if (hidden === '' || hidden === '.' || hidden === '..') {
    throw malformed(`the whiteout ${showName(name)} names nothing`);
  }
  if (directory) whiteOut(directory, hidden, layer);
}

function findLinkTarget(
  entry: TarEntry,
  find: (parts: string[]) => TreeNode | undefined,
): TreeNode {
  const parts = splitPath(entry.linkName);
  const name = parts.pop();
  const directory = find(parts);
  const target = name === undefined ? directory : directory?.children.get(name);
  const link = `the hard link ${showName(entry.name)} to ${showName(entry.linkName)}`;
  if (target === undefined) throw malformed(`${link} has no target`);
  if (target.type === 'directory') throw malformed(`${link} has a directory as target`);
  return target;
}

function setAttributes(node: TreeNode, entry: TarEntry, layer: number): void {
  node.mode = entry.mode;
  node.uid = entry.uid;
  node.gid = entry.gid;
  node.mtimeSec = entry.mtimeSec;
  node.mtimeNsec = entry.mtimeNsec;
  node.xattrs = admitXattrs(entry);
  node.layer = layer;
  node.size = entry.size;
  node.target = entry.linkName;
  if (entry.type === 'symlink' && entry.linkName === '') {
    throw malformed(`the symbolic link ${showName(entry.name)} has no target`);
  }
  if (entry.deviceMajor > DEVICE_MAJOR_MAX || entry.deviceMinor > DEVICE_MINOR_MAX) {
    throw malformed(`the device ${showName(entry.name)} has a number out of range`);
  }
  node.deviceMajor = entry.deviceMajor;
  node.deviceMinor = entry.deviceMinor;
}

function admitXattrs(entry: TarEntry): ReadonlyMap<string, Buffer> | undefined {
  if (entry.xattrs === undefined) return undefined;
  const admitted = new Map<string, Buffer>();
  let bytes = 0;
  for (const [name, value] of entry.xattrs) {
    const known = XATTR_NAMESPACES.some(
      (namespace) => name.startsWith(namespace) && name.length > namespace.length,
    );
    if (!known && !XATTR_NAMES.includes(name)) continue;
    bytes += name.length + value.length;
    if (name.length > XATTR_NAME_BYTES_MAX || bytes > XATTR_BYTES_MAX) {
      throw malformed(
        `the extended attributes of ${showName(entry.name)} are larger than ${XATTR_BYTES_MAX} bytes`,
      );
    }
    admitted.set(name, value);
  }
  return admitted.size === 0 ? undefined : admitted;
}
