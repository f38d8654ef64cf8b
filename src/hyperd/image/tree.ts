import { malformed, showName } from './tar.ts';

/**
 * The file tree of an image, as metadata in memory. Nothing of it ever exists as a path on the
 * host: names are keys of maps, symbolic links are text, and content is a place in a spool file.
 * Names are byte strings (`latin1`).
 */
export type NodeType = 'directory' | 'file' | 'symlink' | 'char' | 'block' | 'fifo';

export interface TreeNode {
  type: NodeType;
  /** Permission, set-user-id, set-group-id and sticky bits. */
  mode: number;
  uid: number;
  gid: number;
  mtimeSec: number;
  mtimeNsec: number;
  xattrs: ReadonlyMap<string, Buffer> | undefined;
  /** Index of the layer that made it, or changed its attributes last. */
  layer: number;
  /** The last layer that had what earlier ones left here removed; spares hiding things twice. */
  clearedBy: number;
  /** Of a directory; empty for all others. */
  children: Map<string, TreeNode>;
  /** Of a symbolic link. */
  target: string;
  /** Of a file: bytes, and where they begin in the spool of its layer. */
  size: number;
  spool: number;
  offset: number;
  /** Of a device. */
  deviceMajor: number;
  deviceMinor: number;
}

/** Linux' NAME_MAX, and EROFS'. */
const NAME_BYTES_MAX = 255;
/** Deeper trees exist only to exhaust whoever walks them. */
const TREE_DEPTH_MAX = 256;
/** Symbolic links followed for one path; Linux' own limit. */
const LINKS_FOLLOWED_MAX = 40;

const NO_CHILDREN = new Map<string, TreeNode>();

export function newNode(type: NodeType, layer: number): TreeNode {
  return {
    type,
    mode: type === 'directory' ? 0o755 : 0o644,
    uid: 0,
    gid: 0,
    mtimeSec: 0,
    mtimeNsec: 0,
    xattrs: undefined,
    layer,
    clearedBy: -1,
    children: type === 'directory' ? new Map() : NO_CHILDREN,
    target: '',
    size: 0,
    spool: layer,
    offset: 0,
    deviceMajor: 0,
    deviceMinor: 0,
  };
}

/**
 * The components of a path in an archive. A leading slash means the image's root, as does `.`.
 * @throws ImageError Malformed where `..` leads above the root, or a name or the depth is too long
 */
export function splitPath(path: string): string[] {
  const parts: string[] = [];
  for (const part of path.split('/')) {
    if (part === '' || part === '.') continue;
    if (part === '..') {
      if (parts.pop() === undefined) {
        throw malformed(`the path ${showName(path)} leads out of the image's root`);
      }
      continue;
    }
    if (part.length > NAME_BYTES_MAX) {
      throw malformed(
        `the path ${showName(path)} has a component of ${part.length} bytes, ` +
          `at most ${NAME_BYTES_MAX} are allowed`,
      );
    }
    parts.push(part);
  }
  if (parts.length > TREE_DEPTH_MAX) {
    throw malformed(
      `the path ${showName(path)} is ${parts.length} levels deep, at most ${TREE_DEPTH_MAX} are allowed`,
    );
  }
  return parts;
}

export interface WalkOptions {
  layer: number;
  /** Makes directories that are missing, and those that the layer hides something else with. */
  create: boolean;
  /** Called for each directory that is made. */
  onCreate?: (directory: TreeNode) => void;
  /** Called with the number of components that a symbolic link adds to the way. */
  onFollow?: (steps: number) => void;
}

/**
 * The directory at `parts`, or undefined where there is none. Symbolic links are followed,
 * confined to the root; with `create`, only those of the same layer. What an earlier layer has
 * in the way of a directory is then hidden by a new one: layers are united, as an overlay mount
 * does it, not unpacked one over the other.
 * @throws ImageError Malformed for a loop of symbolic links
 */
export function walkToDirectory(
  root: TreeNode,
  parts: readonly string[],
  options: WalkOptions,
): TreeNode | undefined {
  const path: TreeNode[] = [root];
  const pending = [...parts].reverse();
  let linksFollowed = 0;
  for (let part = pending.pop(); part !== undefined; part = pending.pop()) {
    const current = path[path.length - 1] as TreeNode;
    if (part === '' || part === '.') continue;
    if (part === '..') {
      if (path.length > 1) path.pop();
      continue;
    }
    const child = current.children.get(part);
    if (child?.type === 'symlink' && (child.layer === options.layer || !options.create)) {
      linksFollowed += 1;
      if (linksFollowed > LINKS_FOLLOWED_MAX) {
        throw malformed(`the path ${showName(parts.join('/'))} has too many symbolic links`);
      }
      if (child.target.startsWith('/')) path.length = 1;
      const steps = child.target.split('/').reverse();
      options.onFollow?.(steps.length);
      pending.push(...steps);
      continue;
    }
    const next = child?.type === 'directory' ? child : makeDirectory(current, part, options);
    if (next === undefined) return undefined;
    if (path.length > TREE_DEPTH_MAX) {
      throw malformed(
        `the path ${showName(parts.join('/'))} is more than ${TREE_DEPTH_MAX} levels deep`,
      );
    }
    path.push(next);
  }
  return path[path.length - 1];
}

function makeDirectory(parent: TreeNode, name: string, options: WalkOptions): TreeNode | undefined {
  if (!options.create) return undefined;
  if (name.length > NAME_BYTES_MAX) {
    throw malformed(`the name ${showName(name)} has more than ${NAME_BYTES_MAX} bytes`);
  }
  const directory = newNode('directory', options.layer);
  options.onCreate?.(directory);
  parent.children.set(name, directory);
  return directory;
}

/**
 * Removes what earlier layers put below `directory`; what `layer` itself put there stays.
 * The second time in one layer it has nothing to do, so a layer full of whiteouts costs no more
 * than the files it hides.
 */
export function removeLowerChildren(directory: TreeNode, layer: number): void {
  if (directory.clearedBy === layer) return;
  directory.clearedBy = layer;
  for (const name of [...directory.children.keys()]) whiteOut(directory, name, layer);
}

/** Removes one name as a whiteout of `layer` does. */
export function whiteOut(directory: TreeNode, name: string, layer: number): void {
  const child = directory.children.get(name);
  if (child === undefined) return;
  if (child.type === 'directory') removeLowerChildren(child, layer);
  if (child.layer < layer && child.children.size === 0) directory.children.delete(name);
}
