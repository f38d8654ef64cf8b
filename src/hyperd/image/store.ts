import type { ImageStatus, TransferProgress } from '../../api/hyperd.ts';

/**
 * Images of a node: pulled from OCI registries, verified, and turned into one read-only disk
 * file per image, shared by all VMs that use it.
 */
export interface ImageStore {
  /**
   * Makes the image present and returns it. Pulls of the same digest are shared; an interrupted
   * pull goes on where it stopped.
   * @throws ImageError
   */
  pull(request: PullRequest, signal?: AbortSignal, tell?: TellProgress): Promise<Image>;
  /**
   * Sends an image that is present to the registry of a reference. What is there already is not
   * sent again.
   * @throws ImageError
   */
  push(request: PushRequest, signal?: AbortSignal, tell?: TellProgress): Promise<Image>;
  /**
   * Takes the images of an archive: an OCI layout, or what `docker save` writes, as a tar that may
   * be compressed.
   * @throws ImageError
   */
  load(request: LoadRequest, signal?: AbortSignal): Promise<Image[]>;
  /**
   * An archive of images by their names or ids: an OCI layout that `docker load` takes too.
   * @throws ImageError NotFound
   */
  save(names: string[], signal?: AbortSignal): Promise<AsyncIterable<Uint8Array>>;
  /** By reference or by id; undefined where it is not present. */
  get(reference: string): Image | undefined;
  /**
   * Whether a present image may be used without a pull: everyone may use what its registry gave
   * to anybody, and otherwise who has a credential with which it has been pulled before.
   */
  mayUse(request: PullRequest): boolean;
  list(): Image[];
  /** Removes the reference, and the disk when nothing refers to it. @throws ImageError InUse */
  remove(reference: string): Promise<void>;
  /**
   * Pins the disk of an image while a VM uses it.
   *
   * @param user whose pod runs it, where it is somebody's
   */
  acquire(imageId: string, owner: string, user?: string): Promise<string>;
  release(imageId: string, owner: string): Promise<void>;
  /** Who holds which disk; kept over restarts. */
  leases(): ImageLease[];
  /** Removes what nobody's pods but this user's have run, as far as no VM uses it. */
  forget(user: string): Promise<void>;
  close(): Promise<void>;
}

export interface ImageLease {
  imageId: string;
  owner: string;
}

export interface PullRequest {
  reference: string;
  /** Tried in order before the node's own configuration. */
  credentials: RegistryCredential[];
}

export interface PushRequest {
  reference: string;
  /** Which image: a name or id of it. @default the reference */
  image?: string;
  credentials: RegistryCredential[];
}

export interface LoadRequest {
  archive: AsyncIterable<Uint8Array>;
  /** Names for the image of the archive, in place of those that it brings. */
  references: string[];
}

/** Called from time to time, at most every so often; nothing waits for it. */
export type TellProgress = (progress: TransferProgress) => void;

export interface RegistryCredential {
  username: string;
  password: string;
}

/** An image as hyperd's API tells of it. */
export type Image = ImageStatus;

export type ImageErrorReason =
  | 'InvalidReference'
  | 'NotFound'
  | 'Unauthorized'
  | 'DigestMismatch'
  | 'WrongPlatform'
  | 'Malformed'
  | 'TooLarge'
  | 'Unreachable'
  | 'InUse'
  | 'NoSpace';

/** A pull that failed. The message names the image, the registry and what went wrong. */
export class ImageError extends Error {
  override name = 'ImageError';
  readonly reason: ImageErrorReason;
  /** Whether trying again may help. */
  readonly transient: boolean;
  constructor(
    reason: ImageErrorReason,
    message: string,
    options: { transient?: boolean; cause?: unknown } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.reason = reason;
    this.transient = options.transient ?? reason === 'Unreachable';
  }
}
