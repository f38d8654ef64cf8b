import { createReadStream } from 'node:fs';
import type { ImageRecord } from './catalog.ts';
import type { Target } from './distribution.ts';
import { readAll } from './http.ts';
import type { HttpResponse } from './http.ts';
import type { Descriptor } from './manifest.ts';
import { tellEverySoOften } from './progress.ts';
import { pin } from './pull.ts';
import type { PullContext } from './pull.ts';
import { rebuildImage } from './rebuild.ts';
import type { Reference } from './reference.ts';
import { retrying } from './retry.ts';
import { expectStatus } from './session.ts';
import { ImageError } from './store.ts';
import type { RegistryCredential } from './store.ts';

const ANSWER_BYTES_MAX = 64 << 10;
const READ_BYTES = 256 << 10;

/**
 * Sends an image to the registry of a reference, with the first credential that it takes.
 * @throws ImageError of the last one; the signal's reason
 */
export async function pushImage(
  context: PullContext,
  record: ImageRecord,
  reference: Reference,
  credentials: RegistryCredential[],
  signal: AbortSignal,
): Promise<void> {
  if (reference.tag === '') {
    throw new ImageError('InvalidReference', 'an image is pushed under a tag, this is a digest');
  }
  const blobs = [record.id, ...record.layers];
  pin(context.pinned, blobs, 1);
  try {
    let failure: unknown;
    for (const target of await context.client.targets(reference, credentials)) {
      try {
        return await pushTo(context, record, target, reference.tag, signal);
      } catch (error) {
        signal.throwIfAborted();
        failure = error;
        if (!(error instanceof ImageError) || error.reason !== 'Unauthorized') break;
      }
    }
    throw failure;
  } finally {
    pin(context.pinned, blobs, -1);
  }
}

async function pushTo(
  context: PullContext,
  record: ImageRecord,
  target: Target,
  tag: string,
  signal: AbortSignal,
): Promise<void> {
  const image = await rebuildImage(context.content, record);
  const blobs = new Map([...image.layers, image.config].map((blob) => [blob.digest, blob]));
  for (const blob of blobs.values()) {
    const tell = tellEverySoOften(context, blob);
    tell(0);
    await retrying(target.session.context, signal, (progress) =>
      pushBlob(context, target, blob, progress, signal),
    );
    tell(blob.size);
  }
  const { session } = target;
  const { mediaType, size } = image.manifest;
  await retrying(session.context, signal, async () => {
    const response = await session.send({
      method: 'PUT',
      url: at(target, `manifests/${tag}`),
      headers: { 'content-type': mediaType, 'content-length': String(size) },
      body: image.manifestBytes,
      signal,
    });
    await finish(response, [201], `manifest ${tag}`);
  });
}

async function pushBlob(
  context: PullContext,
  target: Target,
  blob: Descriptor,
  progress: (bytes: number) => void,
  signal: AbortSignal,
): Promise<void> {
  const { session } = target;
  const what = `blob ${blob.digest}`;
  const known = await session.send({
    method: 'HEAD',
    url: at(target, `blobs/${blob.digest}`),
    signal,
  });
  known.destroy();
  if (known.status === 200) return;
  const begun = await session.send({
    method: 'POST',
    url: at(target, 'blobs/uploads/'),
    headers: { 'content-length': '0' },
    signal,
  });
  await finish(begun, [202], what);
  const location = URL.parse(begun.headers.location ?? '', target.base);
  const isSafe = location?.protocol === 'https:' || location?.protocol === target.base.protocol;
  if (!location || !isSafe) {
    throw new ImageError('Malformed', `${what}: the registry does not say where it is to be sent`);
  }
  location.searchParams.set('digest', blob.digest);
  const tell = tellEverySoOften(context, blob);
  const response = await session.send({
    method: 'PUT',
    url: location,
    headers: {
      'content-type': 'application/octet-stream',
      'content-length': String(blob.size),
    },
    body: () => {
      let sent = 0;
      const stream = createReadStream(context.content.path(blob.digest), {
        highWaterMark: READ_BYTES,
      });
      return stream.on('data', (chunk) => {
        sent += chunk.length;
        progress(chunk.length);
        tell(sent);
      });
    },
    signal,
  });
  await finish(response, [201], what);
}

function at({ base }: Target, path: string): URL {
  const url = new URL(base);
  url.pathname = `${url.pathname}/${path}`;
  return url;
}

/** @throws ImageError, HttpError */
async function finish(response: HttpResponse, expected: number[], what: string): Promise<void> {
  await expectStatus(response, expected, what);
  await readAll(response, ANSWER_BYTES_MAX);
}
