import { createReadStream, createWriteStream } from 'node:fs';
import { readFile, rm } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { ImageStatus, PullImage } from '../../api/hyperd.ts';
import type { HyperdClient } from '../../client/hyperd.ts';
import { parseReference } from '../../hyperd/image/reference.ts';
import { UsageError } from '../errors.ts';
import { bytes, printList } from './format.ts';
import type { ListOptions } from './format.ts';
import { familiar, findImage, shortId } from './names.ts';
import { showTransfer } from './transfer.ts';

type Credentials = PullImage['credentials'];

interface AuthOptions {
  authfile?: string;
}

/** Makes an image present, with bars where somebody looks. */
export async function ensureImage(
  client: HyperdClient,
  reference: string,
  policy: PullImage['policy'],
  options: AuthOptions = {},
  signal: AbortSignal = new AbortController().signal,
): Promise<ImageStatus> {
  const present = policy === 'always' ? undefined : findImage(await client.images(), reference);
  if (present) return present;
  const credentials = await readCredentials(reference, options.authfile);
  return showTransfer(client.pullProgress({ reference, credentials, policy }, signal));
}

export async function pullImage(
  client: HyperdClient,
  reference: string,
  options: AuthOptions,
): Promise<void> {
  const image = await ensureImage(client, reference, 'always', options);
  process.stdout.write(`${image.id}\n`);
}

export async function pushImage(
  client: HyperdClient,
  reference: string,
  { image, authfile }: AuthOptions & { image?: string },
): Promise<void> {
  const found = await requireImage(client, image ?? reference);
  const credentials = await readCredentials(reference, authfile);
  const request = { reference, image: found.id, credentials };
  await showTransfer(client.pushProgress(request, new AbortController().signal));
  process.stdout.write(`${reference}\n`);
}

/** @param path undefined reads the standard input */
export async function loadImages(
  client: HyperdClient,
  path: string | undefined,
  { name = [] }: { name?: string[] },
): Promise<void> {
  const archive: Readable = path === undefined ? process.stdin : createReadStream(path);
  if (path === undefined && process.stdin.isTTY) {
    throw new UsageError('Cannot load images: name an archive, or let one come in by a pipe.');
  }
  const failed = new Promise<never>((_, reject) => {
    archive.once('error', (error) =>
      reject(new UsageError(`Cannot read the archive: ${error.message}.`)),
    );
  });
  const signal = new AbortController().signal;
  const images = await Promise.race([client.loadImages(archive, name, signal), failed]);
  for (const { id, references } of images) {
    process.stdout.write(`${references.map(familiar).join(' ') || id}\n`);
  }
}

export async function saveImages(
  client: HyperdClient,
  names: string[],
  { output }: { output?: string },
): Promise<void> {
  if (output === undefined && process.stdout.isTTY) {
    throw new UsageError('Cannot write an archive to a terminal: use -o FILE, or a pipe.');
  }
  const ids: string[] = [];
  // By its name where it has been given one: that goes into the archive.
  for (const name of names) ids.push((await requireImage(client, name)).id);
  const archive = await client.saveImages([...new Set(ids)], new AbortController().signal);
  if (output === undefined) {
    await pipeline(archive, process.stdout, { end: false });
    return;
  }
  try {
    await pipeline(archive, createWriteStream(output, { mode: 0o600 }));
  } catch (error) {
    await rm(output, { force: true });
    throw new UsageError(`Cannot write "${output}": ${(error as Error).message}.`);
  }
}

export async function listImages(client: HyperdClient, options: ListOptions): Promise<void> {
  const images = await client.images();
  printList(options, images, ['NAME', 'ID', 'SIZE'], ({ id, references, diskBytes }) => {
    const tags = references.filter((name) => !name.includes('@')).map(familiar);
    return [tags.join(', ') || '<none>', shortId(id), bytes(diskBytes)];
  });
}

export async function removeImages(client: HyperdClient, names: string[]): Promise<void> {
  for (const name of names) {
    const image = await requireImage(client, name);
    const isNamed = findImage([{ ...image, id: '' }], name) !== undefined;
    await client.removeImage(isNamed ? name : image.id);
    process.stdout.write(`${name}\n`);
  }
}

async function requireImage(client: HyperdClient, name: string): Promise<ImageStatus> {
  const found = findImage(await client.images(), name);
  if (!found) throw new UsageError(`There is no image "${name}" here.`);
  return found;
}

const DOCKER_HUB = 'https://index.docker.io/v1/';

/**
 * What docker, podman and their like have been logged in with: no option takes a secret. Helpers
 * that keep credentials elsewhere are not asked.
 */
async function readCredentials(
  reference: string,
  authfile = process.env['REGISTRY_AUTH_FILE'],
): Promise<Credentials> {
  const directory = process.env['DOCKER_CONFIG'] ?? join(homedir(), '.docker');
  const path = authfile ?? join(directory, 'config.json');
  const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (authfile === undefined && error.code === 'ENOENT') return '{}';
    throw new UsageError(`Cannot read credentials: ${error.message}.`);
  });
  const { registry } = parseReference(reference);
  return credentialsFor(text, registry, path);
}

/** @throws UsageError where the file is not what docker writes */
export function credentialsFor(text: string, registry: string, path: string): Credentials {
  const auths = parseAuths(text, path);
  const keys = [registry, `https://${registry}`, `https://${registry}/v1/`];
  if (registry === 'docker.io') keys.push(DOCKER_HUB);
  return keys.flatMap((key) => {
    const packed = auths[key]?.auth;
    if (typeof packed !== 'string') return [];
    const pair = Buffer.from(packed, 'base64').toString('utf8');
    const colon = pair.indexOf(':');
    return colon < 0 ? [] : [{ username: pair.slice(0, colon), password: pair.slice(colon + 1) }];
  });
}

function parseAuths(text: string, path: string): Record<string, { auth?: unknown }> {
  try {
    return (JSON.parse(text) as { auths?: Record<string, { auth?: unknown }> }).auths ?? {};
  } catch (error) {
    throw new UsageError(`Cannot read credentials from ${path}: ${(error as Error).message}.`);
  }
}
