import { systemClock } from '../../../src/base/clock.ts';
import { either, hides, refused, refusedWith, shows } from '../support/attempt.ts';
import type { Attempt } from '../support/attempt.ts';
import type { Answer } from '../support/client.ts';
import type { World } from '../support/world.ts';

const ALL = '/api/v1/secrets';
const operator = { by: ['operator' as const] };
const ACME = '"namespace":"acme';

const token = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
const META = 'meta.k8s.io/v1';

/** Places to go on from that the server never gave out. */
const FORGED: Record<string, (revision: number) => object> = {
  'before the victim': (rv) => ({ v: META, rv, start: 'acm\u0000' }),
  'in the victims namespace': (rv) => ({ v: META, rv, start: 'acme/\u0000' }),
  'after a name of the victims': (rv) => ({ v: META, rv, start: 'acme/t\u0000' }),
  'at a path': (rv) => ({ v: META, rv, start: 'globex/../acme/\u0000' }),
  'at the newest state': () => ({ v: META, rv: -1, start: 'acme/\u0000' }),
  'at an old revision': () => ({ v: META, rv: 20, start: 'acme/\u0000' }),
  'at no revision': () => ({ v: META, rv: 0, start: 'acme/\u0000' }),
  'at a later revision': (rv) => ({ v: META, rv: rv + 1_000_000, start: 'acme/\u0000' }),
  'of another version': (rv) => ({ v: 'meta.k8s.io/v2', rv, start: 'acme/\u0000' }),
};

const revisionOf = async (world: World): Promise<number> => {
  const { metadata } = await world.want<{ metadata: { resourceVersion: string } }>('operator', {
    path: `${ALL}?limit=1`,
  });
  return Number(metadata.resourceVersion);
};

const continued = Object.entries(FORGED).map(([name, make]): Attempt => {
  const path = async (world: World) => {
    const text = token(make(await revisionOf(world)));
    return `${ALL}?limit=500&continue=${text}`;
  };
  return {
    name: `goes on ${name}`,
    by: ['bob'],
    attack: async (world, who) => world.send(who, { path: await path(world) }),
    expect: either(hides(ACME), refusedWith(400, 410, 422, 504)),
    control: { ...operator, try: { path: `${ALL}?limit=500` }, expect: shows('canary-') },
  };
});

const stolen: Attempt = {
  name: 'goes on where the victim stopped',
  by: ['bob'],
  attack: async (world, who) => {
    const path = '/api/v1/configmaps?limit=1';
    const { metadata } = await world.want<{ metadata: { continue: string } }>('alice', { path });
    return world.send(who, { path: `${path}&limit=500&continue=${metadata.continue}` });
  },
  expect: hides(ACME),
  control: { try: { path: '/api/v1/configmaps' }, expect: shows('canary-') },
};

/** Revisions at which there was more, or less, or nothing yet. */
const atRevisions = ['Exact', 'NotOlderThan', ''].flatMap((match) =>
  ['0', '1', 'first', 'now', 'later'].map((when): Attempt => {
    const path = async (world: World) => {
      const now = await revisionOf(world);
      const revisions: Record<string, string> = {
        ...{ first: world.firstRevision, now: String(now), later: String(now + 1_000_000) },
      };
      const how = match ? `&resourceVersionMatch=${match}` : '';
      return `${ALL}?resourceVersion=${revisions[when] ?? when}${how}`;
    };
    return {
      name: `lists at revision ${when} ${match}`.trim(),
      by: ['bob'],
      attack: async (world, who) => world.send(who, { path: await path(world) }),
      expect: either(hides(ACME), refusedWith(400, 410, 422, 504)),
      control: { ...operator, try: { path: ALL }, expect: shows('canary-') },
    };
  }),
);

const WATCHES = [
  'watch=true&resourceVersion=FIRST',
  'watch=true&resourceVersion=0',
  'watch=true&resourceVersion=FIRST&allowWatchBookmarks=true',
  'watch=1&resourceVersion=FIRST&labelSelector=mark',
  'watch=true&resourceVersion=FIRST&fieldSelector=metadata.namespace%3Dacme',
];

const hasCanary = (text: string) => text.includes('canary-');

const watched = WATCHES.map((query): Attempt => {
  const path = (world: World) =>
    `${ALL}?${query.replace('FIRST', world.firstRevision)}&timeoutSeconds=1`;
  return {
    name: `watches ${query}`,
    attack: (world) => ({ path: path(world) }),
    expect: either(hides(ACME), refused),
    control: {
      ...operator,
      try: (world) => ({ path: path(world), until: hasCanary }),
      expect: shows('canary-'),
    },
  };
});

const shapes = [
  'application/json;as=Table;v=v1;g=meta.k8s.io',
  'application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io',
  'application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io',
  'application/yaml',
  'application/vnd.kubernetes.protobuf',
].flatMap((accept) =>
  [ALL, '/api/v1/namespaces/acme/secrets', '/api/v1/namespaces/acme/secrets/target'].map(
    (path): Attempt => ({
      name: `reads ${path} as ${accept}`,
      attack: { path, headers: { accept } },
      expect: either(hides('canary'), refused),
      control: {
        ...operator,
        try: { path, headers: { accept: 'application/yaml' } },
        expect: shows('target'),
      },
    }),
  ),
);

/** A name that was the victim's and is the attacker's now: nothing of what it had may show. */
async function inherited(world: World, request: (path: string) => string): Promise<Answer> {
  const { revision, token: bearer } = await inheritance(world);
  const path = request('/api/v1/namespaces/acme-sub-x/configmaps').replace('REVISION', revision);
  return world.send({ token: bearer }, { path });
}

const heirs = new WeakMap<World, Promise<{ revision: string; token: string }>>();

function inheritance(world: World): Promise<{ revision: string; token: string }> {
  let made = heirs.get(world);
  if (!made) heirs.set(world, (made = handOver(world)));
  return made;
}

async function handOver(world: World): Promise<{ revision: string; token: string }> {
  const namespaces = '/api/v1/namespaces';
  const name = 'acme-sub-x';
  const namespace = { metadata: { name } };
  await world.want('alice', { method: 'POST', path: namespaces, body: namespace });
  const body = { metadata: { name: 'left' }, data: { note: 'canary-left-behind' } };
  const path = `${namespaces}/${name}/configmaps`;
  const { metadata } = await world.want('alice', { method: 'POST', path, body });
  world.canaries.push('canary-left-behind');
  await world.want('alice', { method: 'DELETE', path: `${namespaces}/${name}` });
  for (
    let tries = 0;
    (await world.send('operator', { path: `${namespaces}/${name}` })).status !== 404;
    tries += 1
  ) {
    if (tries > 400) throw new Error('The namespace does not go');
    await systemClock.sleep(25);
  }
  const { token: heir } = await world.newTenant('acme-sub', 'acme');
  await world.want({ token: heir }, { method: 'POST', path: namespaces, body: namespace });
  const revision = String(Number(metadata.resourceVersion) - 1);
  return { revision, token: heir };
}

const INHERITED: Record<string, (path: string) => string> = {
  'watches from before': (path) => `${path}?watch=true&resourceVersion=REVISION&timeoutSeconds=1`,
  'lists as it was': (path) => `${path}?resourceVersion=REVISION&resourceVersionMatch=Exact`,
  'lists as it was then': (path) => `${path}?resourceVersion=REVISION`,
  'lists what is there': (path) => path,
  'reads what was there': (path) => `${path}/left`,
};

const reused = Object.entries(INHERITED).map(([name, request]): Attempt => ({
  name: `${name} in a namespace whose name was another's`,
  by: ['nobody'],
  attack: (world) => inherited(world, request),
  expect: either(hides('left"'), refusedWith(404, 410)),
  control: {
    ...operator,
    try: async (world, who) => {
      const { revision } = await inheritance(world);
      const path = '/api/v1/configmaps?watch=true&timeoutSeconds=1';
      const until = (text: string) => text.includes('canary-left-behind');
      return world.send(who, { path: `${path}&resourceVersion=${revision}`, until });
    },
    expect: shows('canary-left-behind'),
  },
}));

export const LIST_ATTEMPTS: Attempt[] = [
  ...continued,
  stolen,
  ...atRevisions,
  ...watched,
  ...shapes,
  ...reused,
];
