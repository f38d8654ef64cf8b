import { systemClock } from '../../../src/base/clock.ts';
import { IDENTITY_CACHE_MS } from '../../../src/api/identity.ts';
import type { Login, Scope } from '../../../src/identity/conformance.ts';
import { refusedWith, shows, works } from '../support/attempt.ts';
import type { Attempt } from '../support/attempt.ts';
import type { Answer } from '../support/client.ts';
import type { Person, World } from '../support/world.ts';

const OWN = '/api/v1/namespaces/globex/configmaps';

/** What an administrator does after which a token is worth nothing. */
type Ending = (world: World, person: Person & { token: string }) => Promise<void>;

const ENDINGS: Record<string, Ending> = {
  'was revoked': ({ identity }, { token }) => identity.revokeToken(token),
  'is of a user who was disabled': ({ identity }, { id }) =>
    identity.update('user', id, { enabled: false }),
  'is of a user who was removed': ({ identity }, { id }) => identity.remove('user', id),
  'is of a user whose password was changed': ({ identity }, { id }) =>
    identity.update('user', id, { password: 'another correct horse' }),
};

interface Ended {
  before: Answer;
  after: Answer;
}

/** All tokens are ended at once, and looked at when none may be remembered any more. */
const endedBy = new WeakMap<World, Promise<Record<string, Ended>>>();

function ended(world: World): Promise<Record<string, Ended>> {
  let all = endedBy.get(world);
  if (!all) endedBy.set(world, (all = endAll(world)));
  return all;
}

/** Beside what is promised: Keystone's own time, and that of a busy machine. */
const SLACK_MS = 2_500;

async function endAll(world: World): Promise<Record<string, Ended>> {
  const names = Object.keys(ENDINGS);
  const people = [];
  for (const name of names) people.push({ name, person: await world.newPerson('globex', 'admin') });
  const before = new Map<string, Answer>();
  for (const { name, person } of people) {
    before.set(name, await world.send({ token: person.token }, { path: OWN }));
    await ENDINGS[name]?.(world, person);
  }
  await systemClock.sleep(IDENTITY_CACHE_MS + SLACK_MS);
  const all: Record<string, Ended> = {};
  for (const { name, person } of people) {
    const after = await world.send({ token: person.token }, { path: OWN });
    all[name] = { before: before.get(name) as Answer, after };
  }
  return all;
}

const outlived = Object.keys(ENDINGS).map((name): Attempt => ({
  name: `a token that ${name}`,
  by: ['nobody'],
  attack: async (world) => (await ended(world))[name]?.after as Answer,
  expect: refusedWith(401),
  control: { try: async (world) => (await ended(world))[name]?.before as Answer },
}));

/** The answer of an identity service that gives no token is a refusal; with one, the server's. */
async function logIn(world: World, login: Login, scope?: Scope): Promise<Answer> {
  const refusal = { status: 401, headers: {}, text: '', tookMs: 0 };
  const token = await world.identity.issueToken(login, scope).catch(() => undefined);
  return token === undefined ? refusal : world.send({ token }, { path: '/api/v1/pods' });
}

type Scoped = (world: World) => Scope | undefined;

const SCOPES: Record<string, Scoped> = {
  'the victims project': ({ people }) => ({ projectId: people.alice.project }),
  'the whole system': () => ({ system: true }),
  nothing: () => 'unscoped',
  'its domain': ({ identity }) => ({ domainId: identity.domain.id }),
  'a project that does not exist': () => ({ projectId: '0'.repeat(32) }),
};

const scoped = Object.entries(SCOPES).map(([name, scope]): Attempt => ({
  name: `a token for ${name}`,
  by: ['nobody'],
  attack: (world) => logIn(world, world.people.bob.login, scope(world)),
  expect: refusedWith(401),
  control: {
    try: (world) => logIn(world, world.people.bob.login, { projectId: world.people.bob.project }),
  },
}));

/** A credential for some requests alone, and requests that look like them. */
const RULED = [
  '/api/v1/namespaces/globex/secrets',
  '/api/v1/namespaces/globex/secrets/marker',
  '/api/v1/namespaces/acme/configmaps',
  '/api/v1/namespaces/globex/configmaps/../secrets',
  '/api/v1/namespaces/globex/configmaps/%2e%2e/secrets',
  '/api/v1/namespaces/globex//configmaps',
  '/api/v1/configmaps',
  '/apis',
];

const restricted = new WeakMap<World, Promise<string>>();

function ruledToken(world: World): Promise<string> {
  let token = restricted.get(world);
  if (!token) restricted.set(world, (token = makeRuled(world)));
  return token;
}

async function makeRuled({ identity, newPerson }: World): Promise<string> {
  const person = await newPerson('globex', 'admin');
  const accessRules = [{ service: 'kubernetes', method: 'GET', path: `${OWN}/**` }];
  const { id, secret } = await identity.createApplicationCredential(person.token, person.id, {
    ...{ name: 'narrow', accessRules },
  });
  return identity.issueToken({ method: 'application_credential', id, secret });
}

const ruled: Attempt[] = [
  ...RULED.map((path): Attempt => ({
    name: `a credential for ConfigMaps, at ${path}`,
    by: ['nobody'],
    attack: async (world) => world.send({ token: await ruledToken(world) }, { path }),
    expect: refusedWith(400, 401, 403, 404),
    control: {
      try: async (world) =>
        world.send({ token: await ruledToken(world) }, { path: `${OWN}/marker` }),
    },
  })),
  {
    name: 'a credential for reading, to write',
    by: ['nobody'],
    attack: async (world) =>
      world.send({ token: await ruledToken(world) }, { method: 'DELETE', path: `${OWN}/marker` }),
    expect: refusedWith(401, 403),
    control: {
      try: async (world) =>
        world.send({ token: await ruledToken(world) }, { path: `${OWN}/marker` }),
    },
  },
];

interface Question {
  method?: string;
  path: (world: World) => string;
  body?: (world: World) => unknown;
  headers?: (world: World) => Record<string, string>;
}

/** What it asks of the identity service itself with its own token. */
const QUESTIONS: Record<string, Question> = {
  'reads the victims user': { path: ({ people }) => `/users/${people.alice.id}` },
  'disables the victims user': {
    method: 'PATCH',
    path: ({ people }) => `/users/${people.alice.id}`,
    body: () => ({ user: { enabled: false } }),
  },
  'sets the victims password': {
    method: 'PATCH',
    path: ({ people }) => `/users/${people.alice.id}`,
    body: () => ({ user: { password: 'stolen stolen stolen' } }),
  },
  'reads the victims project': { path: ({ people }) => `/projects/${people.alice.project}` },
  'removes the victims project': {
    method: 'DELETE',
    path: ({ people }) => `/projects/${people.alice.project}`,
  },
  'looks into the victims token': {
    path: () => '/auth/tokens',
    headers: ({ credentials }) => ({ 'x-subject-token': credentials.alice.token ?? '' }),
  },
  'lists the victims credentials': {
    path: ({ people }) => `/users/${people.alice.id}/application_credentials`,
  },
  'lists who may what': {
    path: ({ people }) => `/role_assignments?scope.project.id=${people.alice.project}`,
  },
};

const asked = Object.entries(QUESTIONS).map(([name, question]): Attempt => {
  const ask = async (world: World, token: string): Promise<Answer> => {
    const { method = 'GET', path, body, headers } = question;
    const sent = {
      ...{ method, path: path(world) },
      headers: { 'x-auth-token': token, ...headers?.(world) },
      ...(body ? { body: body(world) } : {}),
    };
    const { status, body: said } = await world.identity.call(sent);
    // Ids that were asked for come back in refusals.
    const text = status < 300 ? JSON.stringify(said) : '';
    return { status, headers: {}, text, tookMs: 0 };
  };
  return {
    name: `${name} at the identity service`,
    // A person without a role that a real Keystone takes for the administrator's.
    by: ['reader'],
    attack: (world) => ask(world, world.credentials.reader.token ?? ''),
    expect: refusedWith(401, 403, 404),
    control: {
      by: ['alice'],
      try: async (world) => {
        // The same service answers the victim about itself.
        const { status } = await world.identity.call({
          ...{ method: 'GET', path: '/auth/tokens' },
          headers: {
            'x-auth-token': world.credentials.alice.token ?? '',
            'x-subject-token': world.credentials.alice.token ?? '',
          },
        });
        return { status, headers: {}, text: '', tookMs: 0 };
      },
      expect: works,
    },
  };
});

const changed: Attempt[] = ['', 'x', '.', '='].map((end) => ({
  name: `a token with ${JSON.stringify(end)} instead of its end`,
  by: ['nobody'],
  attack: (world) => {
    const token = `${world.credentials.bob.token?.slice(0, -6)}${end}`;
    return world.send({ token }, { path: OWN });
  },
  expect: refusedWith(401),
  control: { by: ['bob'], try: { path: OWN }, expect: shows('marker') },
}));

export const IDENTITY_ATTEMPTS: Attempt[] = [
  ...outlived,
  ...scoped,
  ...ruled,
  ...asked,
  ...changed,
];
