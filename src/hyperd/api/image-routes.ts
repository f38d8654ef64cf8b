import type { ServerResponse } from 'node:http';
import type { ImageStatus, PullImage, PushImage, TransferProgress } from '../../api/hyperd.ts';
import { validatePull, validatePush } from '../daemon/validate.ts';
import { toStatusError } from './errors.ts';
import { flag, word, words } from './query.ts';
import { openLines, send } from './requests.ts';
import { ARCHIVE, route } from './router.ts';
import type { Route } from './router.ts';

export const IMAGE_ROUTES: Route[] = [
  route(
    'GET',
    '/v1/images',
    { summary: 'Images of this machine', answer: { type: 'ImageStatus', isList: true } },
    async ({ daemon }) => daemon.images(),
  ),
  route(
    'DELETE',
    '/v1/images',
    {
      summary: 'Remove a name of an image, or with its id all of it',
      query: { reference: word('A name or an id') },
    },
    ({ daemon, query }) => daemon.removeImage(query.reference),
  ),
  route(
    'POST',
    '/v1/images/pull',
    {
      summary: 'Make an image present',
      query: { progress: flag('Answer with how far it is, a line each') },
      body: 'PullImage',
      answer: { type: 'ImageStatus', orLines: 'TransferProgress' },
    },
    async ({ daemon, body, query, response, signal }) => {
      const request = validatePull(await body<PullImage>());
      if (!query.progress) return daemon.pullImage(request, signal);
      return tellProgress(response, (tell) => daemon.pullImage(request, signal, tell));
    },
  ),
  route(
    'POST',
    '/v1/images/push',
    {
      summary: 'Send an image to its registry',
      query: { progress: flag('Answer with how far it is, a line each') },
      body: 'PushImage',
      answer: { type: 'ImageStatus', orLines: 'TransferProgress' },
    },
    async ({ daemon, body, query, response, signal }) => {
      const request = validatePush(await body<PushImage>());
      if (!query.progress) return daemon.pushImage(request, signal);
      return tellProgress(response, (tell) => daemon.pushImage(request, signal, tell));
    },
  ),
  route(
    'POST',
    '/v1/images/load',
    {
      summary: 'Take images from an archive, of OCI layout or as "docker save" writes it',
      query: { reference: words('What the image of the archive is called, if it has only one') },
      body: ARCHIVE,
      answer: { type: 'ImageStatus', isList: true },
    },
    ({ daemon, request, query, signal }) => {
      return daemon.loadImages({ archive: request, references: query.reference }, signal);
    },
  ),
  route(
    'GET',
    '/v1/images/save',
    {
      summary: 'Images as one archive of OCI layout, which docker can load too',
      query: { reference: words('Names or ids') },
      answer: { media: ARCHIVE },
    },
    async ({ daemon, query, response, signal }) => {
      const archive = await daemon.saveImages(query.reference, signal);
      response.writeHead(200, { 'content-type': ARCHIVE });
      for await (const chunk of archive) await send(response, chunk);
      response.end();
    },
  ),
];

/** A reader that is slow misses steps, not the end. */
async function tellProgress(
  response: ServerResponse,
  work: (tell: (progress: TransferProgress) => void) => Promise<ImageStatus>,
): Promise<void> {
  openLines(response);
  const write = (progress: TransferProgress) => response.write(`${JSON.stringify(progress)}\n`);
  try {
    const image = await work((progress) => {
      if (!response.writableNeedDrain) write(progress);
    });
    write({ type: 'done', image });
  } catch (error) {
    write({ type: 'failed', status: toStatusError(error).toStatus() });
  }
  response.end();
}
