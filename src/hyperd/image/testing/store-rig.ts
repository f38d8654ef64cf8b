import assert from 'node:assert/strict';
import { after, before, beforeEach } from 'node:test';
import { buildImage } from '../../registry/build.ts';
import type { BuiltImage, ImageSpec } from '../../registry/build.ts';
import { ImageError } from '../store.ts';
import type { ImageErrorReason } from '../store.ts';
import { openTestStore, plainRegistries, startUpstream } from './upstream.ts';
import type { TestStore, Upstream } from './upstream.ts';
import type { Image } from '../store.ts';

const AMD64 = { os: 'linux', architecture: 'amd64' };

/** A store of images that pulls from one registry; each test has a new one. */
export interface StoreRig {
  upstream: Upstream;
  fixture: TestStore;
  pull(name: string, signal?: AbortSignal): Promise<Image>;
}

/** Sets a rig up for all tests of the calling file, and takes it back after them. */
export function useStoreRig(): StoreRig {
  const rig = {
    pull: (name, signal) =>
      rig.fixture.store.pull(
        { reference: `${rig.upstream.host}/${name}`, credentials: [] },
        signal,
      ),
  } as StoreRig;
  before(async () => {
    rig.upstream = await startUpstream();
  });
  after(async () => {
    await rig.upstream.close();
    await rig.fixture.close();
  });
  beforeEach(async () => {
    const { upstream } = rig;
    await rig.fixture?.close();
    upstream.documents.clear();
    upstream.requests = [];
    upstream.intercept = () => false;
    rig.fixture = await openTestStore({ registries: plainRegistries([upstream.host]) });
  });
  return rig;
}

/** An image of one file, `etc/text`. */
export function build(text: string, spec: Partial<ImageSpec> = {}): Promise<BuiltImage> {
  const layers = [[{ path: 'etc/text', content: text }]];
  return buildImage({ layers, platform: AMD64, ...spec });
}

/** The error is the store's, of this reason, and names the image. */
export async function rejectsWith(
  promise: Promise<unknown>,
  reason: ImageErrorReason,
  message: RegExp,
): Promise<void> {
  await assert.rejects(promise, (error) => {
    assert.ok(error instanceof ImageError, String(error));
    assert.equal(error.reason, reason, error.message);
    assert.match(error.message, message);
    assert.match(error.message, /^failed to pull image "/);
    return true;
  });
}
