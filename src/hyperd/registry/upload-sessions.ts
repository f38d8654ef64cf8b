import type { Clock, Timer } from '../../base/clock.ts';
import type { Random } from '../../base/random.ts';
import type { ContentStore, Ingest } from '../image/content.ts';
import { RegistryError } from './errors.ts';
import type { Exchange } from './exchange.ts';

/** Uploads that are under way: few, each for one request at a time, and not for ever. */
export interface UploadSessions {
  /** @throws RegistryError TOOMANYREQUESTS */
  create(repository: string): Promise<Upload>;
  /**
   * Runs `action` as the only one on the upload that the exchange names.
   * @throws RegistryError BLOB_UPLOAD_UNKNOWN, BLOB_UPLOAD_INVALID
   */
  exclusively(exchange: Exchange, action: (upload: Upload) => Promise<void>): Promise<void>;
  /** Ends an upload and leaves its content to the caller. */
  forget(upload: Upload): void;
  /** Ends an upload and throws its content away. */
  discard(upload: Upload): Promise<void>;
  close(): Promise<void>;
}

export interface UploadLimits {
  blobBytesMax: number;
  /** Uploads that are under way. */
  uploadsMax: number;
  /** How long one may rest. */
  idleTimeoutMs: number;
}

export const UPLOAD_LIMITS: UploadLimits = {
  blobBytesMax: 16 * 2 ** 30,
  uploadsMax: 128,
  idleTimeoutMs: 3600_000,
};

export interface Upload {
  id: string;
  repository: string;
  ingest: Ingest;
  isBusy: boolean;
  expiry: Timer;
}

export function createUploadSessions(options: {
  content: ContentStore;
  limits: UploadLimits;
  clock: Clock;
  random: Random;
}): UploadSessions {
  const { content, limits, clock } = options;
  const uploads = new Map<string, Upload>();

  const forget = (upload: Upload): void => {
    upload.expiry.cancel();
    uploads.delete(upload.id);
  };
  const discard = async (upload: Upload): Promise<void> => {
    if (uploads.get(upload.id) !== upload) return;
    forget(upload);
    await upload.ingest.discard();
  };
  const restartExpiry = (upload: Upload): void => {
    upload.expiry.cancel();
    upload.expiry = clock.after(limits.idleTimeoutMs, () => {
      if (!upload.isBusy) void discard(upload);
    });
  };
  const create = async (repository: string): Promise<Upload> => {
    if (uploads.size >= limits.uploadsMax) {
      throw new RegistryError(
        'TOOMANYREQUESTS',
        `${limits.uploadsMax} uploads are under way already`,
      );
    }
    const id = options.random.uuid();
    const expiry = { cancel: () => {} };
    const upload: Upload = {
      id,
      repository,
      ingest: await content.ingest(id),
      isBusy: false,
      expiry,
    };
    uploads.set(id, upload);
    restartExpiry(upload);
    return upload;
  };
  /** Runs `action` as the only one on the upload. */
  const exclusively = async (
    exchange: Exchange,
    action: (upload: Upload) => Promise<void>,
  ): Promise<void> => {
    const upload = uploads.get(exchange.name);
    if (!upload || upload.repository !== exchange.repository) {
      throw new RegistryError('BLOB_UPLOAD_UNKNOWN', 'the upload is unknown to the repository');
    }
    if (upload.isBusy) {
      throw new RegistryError('BLOB_UPLOAD_INVALID', 'another request is writing to the upload');
    }
    upload.isBusy = true;
    try {
      await action(upload);
    } finally {
      upload.isBusy = false;
      if (uploads.has(upload.id)) restartExpiry(upload);
    }
  };
  return {
    create,
    exclusively,
    forget,
    discard,
    async close() {
      for (const upload of [...uploads.values()]) await discard(upload);
    },
  };
}
