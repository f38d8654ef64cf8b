import { randomBytes } from 'node:crypto';
import { after, before, beforeEach } from 'node:test';
import { FakeClock } from '../../../base/clock.fake.ts';
import { buildImage } from '../../registry/build.ts';
import type { BuiltImage } from '../../registry/build.ts';
import type { RegistriesConfig } from '../registries.ts';
import type { RegistryCredential } from '../store.ts';
import { openTestStore, plainRegistries, publish, startUpstream } from './upstream.ts';
import type { TestStore, Upstream } from './upstream.ts';
import type { Image } from '../store.ts';

/** Two registries and stores that pull from them; an image of one small file and a large one. */
export interface RegistriesRig {
  upstream: Upstream;
  other: Upstream;
  image: BuiltImage;
  largeImage: BuiltImage;
  /** The layer of the large image. */
  large: Buffer;
  open(registries: RegistriesConfig, clock?: FakeClock): Promise<OpenedStore>;
  /** A store that reaches `upstream` by plain HTTP. */
  plain(): Promise<OpenedStore>;
}

export interface OpenedStore extends TestStore {
  pull(name: string, credentials?: RegistryCredential[], host?: string): Promise<Image>;
}

/** Sets a rig up for all tests of the calling file, and takes it back after them. */
export function useRegistries(): RegistriesRig {
  const stores: TestStore[] = [];
  const rig = {
    async open(registries, clock) {
      const opened = await openTestStore({ registries, ...(clock ? { clock } : {}) });
      stores.push(opened);
      return {
        ...opened,
        pull: (name, credentials = [], host = rig.upstream.host) =>
          opened.store.pull({ reference: `${host}/${name}`, credentials }),
      };
    },
    plain: () => rig.open(plainRegistries([rig.upstream.host])),
  } as RegistriesRig;
  before(async () => {
    rig.upstream = await startUpstream();
    rig.other = await startUpstream();
    const platform = { os: 'linux', architecture: 'amd64' };
    rig.image = await buildImage({ layers: [[{ path: 'a', content: 'a' }]], platform });
    const layers = [[{ path: 'noise', content: randomBytes(1 << 20) }]];
    rig.largeImage = await buildImage({ layers, platform, compression: 'none' });
    rig.large = [...rig.largeImage.blobs.values()].find(({ length }) => length > 1 << 20) as Buffer;
  });
  after(async () => {
    await rig.upstream.close();
    await rig.other.close();
    for (const store of stores) await store.close();
  });
  beforeEach(() => {
    for (const server of [rig.upstream, rig.other]) {
      server.documents.clear();
      server.requests = [];
      server.intercept = () => false;
    }
    publish(rig.upstream, 'app', '1', rig.image);
    publish(rig.upstream, 'large', '1', rig.largeImage);
  });
  return rig;
}

export const ALICE = { username: 'alice', password: 'correct horse' };
export const MALLORY = { username: 'mallory', password: 'wrong' };

/** Lets only requests with this header through, and challenges the others. */
export function requireAuthorization(server: Upstream, expected: string, challenge: string): void {
  server.intercept = (request, response) => {
    if (request.headers.authorization === expected) return false;
    response.writeHead(401, { 'www-authenticate': challenge }).end('{}');
    return true;
  };
}
