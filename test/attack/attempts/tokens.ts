import { createHmac, createPrivateKey, createPublicKey, createSign, sign } from 'node:crypto';
import { createKey } from '../../../src/auth/pki.ts';
import { refusedWith } from '../support/attempt.ts';
import type { Attempt } from '../support/attempt.ts';
import type { Who, World } from '../support/world.ts';

/** Where every forged token is shown: what it is after is the victim's. */
const SECRET = '/api/v1/namespaces/acme/secrets/target';
const LIST = '/api/v1/namespaces/globex/configmaps';

interface Parts {
  header: Record<string, unknown>;
  claims: Record<string, unknown> & { 'kubernetes.io': Record<string, unknown> };
  signature: string;
}

const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');

function partsOf(token: string): Parts {
  const [header = '', claims = '', signature = ''] = token.split('.');
  const read = (text: string) => JSON.parse(Buffer.from(text, 'base64url').toString('utf8'));
  return { header: read(header), claims: read(claims), signature };
}

const signEs256 = (input: string, key: string) =>
  sign('sha256', Buffer.from(input), { key, dsaEncoding: 'ieee-p1363' }).toString('base64url');

function signed(header: object, claims: object, key: string): string {
  const input = `${encode(header)}.${encode(claims)}`;
  return `${input}.${signEs256(input, key)}`;
}

/** The claims of the victim's service account, as everybody can guess them but for its uid. */
async function victimClaims(world: World): Promise<Parts> {
  return partsOf(await world.accountToken('acme', 'default'));
}

type Forge = (world: World, victim: Parts, own: Parts) => string;

const ownKey = createKey();

/** The public key as the issuer publishes it, which a careless verifier takes for a secret. */
function publicPem(world: World): string {
  const key = createPublicKey(createPrivateKey(world.pki.serviceAccountKey));
  return key.export({ type: 'spki', format: 'pem' }) as string;
}

const FORGERIES: Record<string, Forge> = {
  'without an algorithm': (_, { claims }) =>
    `${encode({ alg: 'none', typ: 'JWT' })}.${encode(claims)}.`,
  'with the algorithm None': (_, { claims }) => `${encode({ alg: 'None' })}.${encode(claims)}.`,
  'with no algorithm and a signature': (_, { claims }, own) =>
    `${encode({ alg: 'none' })}.${encode(claims)}.${own.signature}`,
  'by HMAC with the public key': (world, { claims }) => {
    const input = `${encode({ alg: 'HS256', typ: 'JWT' })}.${encode(claims)}`;
    const mac = createHmac('sha256', publicPem(world)).update(input).digest('base64url');
    return `${input}.${mac}`;
  },
  'by HMAC with an empty key': (_, { claims, header }) => {
    const input = `${encode({ ...header, alg: 'HS256' })}.${encode(claims)}`;
    return `${input}.${createHmac('sha256', '').update(input).digest('base64url')}`;
  },
  'by a key of ones own': (_, { header, claims }) => signed(header, claims, ownKey),
  'by a key that the token brings': (_, { header, claims }) => {
    const jwk = createPublicKey(createPrivateKey(ownKey)).export({ format: 'jwk' });
    return signed({ ...header, jwk }, claims, ownKey);
  },
  'by a key at an address of ones own': (_, { header, claims }) =>
    signed({ ...header, jku: 'https://127.0.0.1:1/jwks' }, claims, ownKey),
  'by a key named as a path': (_, { header, claims }) =>
    signed({ ...header, kid: '../../../../dev/null' }, claims, ownKey),
  'with a certificate in its head': (world, { header, claims }) =>
    signed({ ...header, x5c: [world.pki.caCert] }, claims, ownKey),
  'with a critical extension': (world, { header, claims }) =>
    signed({ ...header, crit: ['x'], x: 1 }, claims, world.pki.serviceAccountKey),
  'with the signature of another': (_, { header, claims }, own) =>
    `${encode(header)}.${encode(claims)}.${own.signature}`,
  'with a signature of zeros': (_, { header, claims }) =>
    `${encode(header)}.${encode(claims)}.${Buffer.alloc(64).toString('base64url')}`,
  'with the signature in another form': (_, { header, claims }) => {
    const input = `${encode(header)}.${encode(claims)}`;
    const der = createSign('sha256').update(input).sign(ownKey).toString('base64url');
    return `${input}.${der}`;
  },
  'without a signature': (_, { header, claims }) => `${encode(header)}.${encode(claims)}.`,
  'of five parts': (_, { header, claims }) => `${encode(header)}.${encode(claims)}.a.b.c`,
  'of another issuer': (world, { header, claims }) =>
    signed(header, { ...claims, iss: 'https://example.org' }, world.pki.serviceAccountKey),
  'for another audience': (world, { header, claims }) =>
    signed(header, { ...claims, aud: ['https://example.org'] }, world.pki.serviceAccountKey),
  'for nobody': (world, { header, claims }) =>
    signed(header, { ...claims, aud: [] }, world.pki.serviceAccountKey),
  'that has expired': (world, { header, claims }) =>
    signed(
      header,
      { ...claims, exp: Math.floor(Date.now() / 1000) - 1 },
      world.pki.serviceAccountKey,
    ),
  'that is not valid yet': (world, { header, claims }) =>
    signed(
      header,
      { ...claims, nbf: Math.floor(Date.now() / 1000) + 600 },
      world.pki.serviceAccountKey,
    ),
  'that says another subject than account': (world, { header, claims }, own) =>
    signed(header, { ...own.claims, sub: claims.sub }, world.pki.serviceAccountKey),
  'of an account with another uid': (world, { header, claims }) => {
    const { 'kubernetes.io': own } = claims;
    const account = { name: 'default', uid: '00000000-0000-0000-0000-000000000000' };
    const forged = { ...claims, 'kubernetes.io': { ...own, serviceaccount: account } };
    return signed(header, forged, world.pki.serviceAccountKey);
  },
  'bound to a pod that is gone': (world, { header, claims }) => {
    const pod = { name: 'gone', uid: '00000000-0000-0000-0000-000000000000' };
    const forged = { ...claims, 'kubernetes.io': { ...claims['kubernetes.io'], pod } };
    return signed(header, forged, world.pki.serviceAccountKey);
  },
  'bound to a pod by another uid': (world, { header, claims }) => {
    const pod = { name: 'target', uid: '00000000-0000-0000-0000-000000000000' };
    const forged = { ...claims, 'kubernetes.io': { ...claims['kubernetes.io'], pod } };
    return signed(header, forged, world.pki.serviceAccountKey);
  },
  'twenty kilobytes long': (_, { header, claims }) =>
    `${encode(header)}.${encode({ ...claims, x: 'x'.repeat(20_000) })}.AA`,
};

/** Each says that it is the victim's account, which its own valid token shows to be let in. */
const forged = Object.entries(FORGERIES).map(([name, forge]): Attempt => ({
  name: `a token ${name}`,
  by: ['robot'],
  attack: async (world) => {
    const own = partsOf(world.credentials.robot.token ?? '');
    const token = forge(world, await victimClaims(world), own);
    return world.send({ token }, { path: '/api/v1/namespaces/acme/pods' });
  },
  expect: refusedWith(401, 431),
  control: {
    try: async (world) => {
      const { header, claims } = await victimClaims(world);
      const token = signed(header, claims, world.pki.serviceAccountKey);
      const body = { apiVersion: 'authentication.k8s.io/v1', kind: 'SelfSubjectReview' };
      const path = '/apis/authentication.k8s.io/v1/selfsubjectreviews';
      return world.send({ token }, { method: 'POST', path, body });
    },
  },
}));

/** Places where a credential may be put, and must not be believed or must not help. */
const SHOWN: Record<string, Record<string, string>> = {
  'basic authentication': { authorization: `Basic ${btoa('admin:admin')}` },
  'an empty bearer token': { authorization: 'Bearer ' },
  'a bearer token with a space': { authorization: 'Bearer a b' },
  'the word null': { authorization: 'Bearer null' },
  'a bootstrap token': { authorization: 'Bearer abcdef.0123456789abcdef' },
  negotiation: { authorization: 'Negotiate YII' },
  'another case': { Authorization: 'bearer undefined' },
  'an object': { authorization: 'Bearer [object Object]' },
};

const shown = Object.entries(SHOWN).map(([name, headers]): Attempt => ({
  name: `${name} instead of a credential`,
  by: ['nobody'],
  attack: { path: SECRET, headers },
  // Who shows nothing at all is nobody, who may nothing.
  expect: refusedWith(401, 403),
  control: { try: { path: SECRET } },
}));

const inQuery = ['access_token', 'token', 'bearer', 'auth'].map((name): Attempt => ({
  name: `a token in the query as ${name}`,
  by: ['nobody'],
  attack: (world) => ({ path: `${SECRET}?${name}=${world.credentials.alice.token}` }),
  expect: refusedWith(401, 403),
  control: { try: { path: SECRET } },
}));

/** Certificates that name somebody, of an authority that is not the cluster's. */
const certified: Attempt[] = [
  {
    name: 'a certificate of an authority of ones own',
    by: ['nobody'],
    attack: async (world) => {
      const { createTestPki } = await import('../../../src/apiserver/testing/tls.ts');
      const { subjectOf } = await import('../../../src/auth/x509.ts');
      const cert = createTestPki().signer.sign({
        subject: subjectOf('kubernetes-admin', ['system:masters']),
        publicKey: createPublicKey(createPrivateKey(ownKey)),
        usages: ['digital signature'],
        extendedUsages: ['client auth'],
      });
      return world.send({ pair: { cert, key: ownKey } }, { path: SECRET });
    },
    expect: refusedWith(401, 0),
    control: { by: ['operator'], try: { path: SECRET } },
  },
  {
    name: 'the certificate of a server as a client',
    by: ['nobody'],
    attack: (world) =>
      world.send(
        { pair: { cert: world.pki.serverCert, key: world.pki.serverKey } },
        { path: SECRET },
      ),
    expect: refusedWith(401, 403, 0),
    control: { by: ['operator'], try: { path: SECRET } },
  },
  {
    name: 'a certificate that says it is of the tenant',
    by: ['nobody'],
    attack: (world) => {
      const pair = world.certificate('mallory', ['tenant:globex', 'tenant:globex:admin']);
      return world.send({ pair }, { path: '/api/v1/secrets' });
    },
    expect: refusedWith(403),
    control: { by: ['operator'], try: { path: '/api/v1/secrets' } },
  },
];

const accounts = '/api/v1/namespaces/globex/serviceaccounts';

/** A token of an account that was there, and an account of the same name that is there now. */
async function replaced(world: World): Promise<string> {
  const name = `short-lived-${Date.now()}`;
  const body = { metadata: { name } };
  await world.want('bob', { method: 'POST', path: accounts, body });
  const token = await world.accountToken('globex', name);
  await world.want('bob', { method: 'DELETE', path: `${accounts}/${name}` });
  await world.want('bob', { method: 'POST', path: accounts, body });
  return token;
}

const review = (world: World, token: string) => ({
  token,
  ask: () =>
    world.send(
      { token },
      { method: 'POST', path: '/apis/authentication.k8s.io/v1/selfsubjectreviews', body: {} },
    ),
});

const outlived: Attempt[] = [
  {
    name: 'a token of an account that was made anew',
    by: ['robot'],
    attack: async (world) => review(world, await replaced(world)).ask(),
    expect: refusedWith(401),
    control: {
      try: async (world) => review(world, await world.accountToken('globex', 'robot')).ask(),
    },
  },
  {
    name: 'a token whose Secret is gone',
    by: ['robot'],
    attack: async (world) => {
      const path = '/api/v1/namespaces/globex/secrets';
      const name = `bound-${Date.now()}`;
      await world.want('bob', { method: 'POST', path, body: { metadata: { name } } });
      const boundObjectRef = { kind: 'Secret', apiVersion: 'v1', name };
      const token = await world.accountToken('globex', 'robot', { boundObjectRef });
      await world.want('bob', { method: 'DELETE', path: `${path}/${name}` });
      return review(world, token).ask();
    },
    expect: refusedWith(401),
    control: {
      try: async (world) => {
        const boundObjectRef = { kind: 'Secret', apiVersion: 'v1', name: 'marker' };
        return review(world, await world.accountToken('globex', 'robot', { boundObjectRef })).ask();
      },
    },
  },
  {
    name: 'a token for other services',
    by: ['robot'],
    attack: async (world) =>
      review(world, await world.accountToken('globex', 'robot', { audiences: ['vault'] })).ask(),
    expect: refusedWith(401),
    control: {
      try: async (world) => review(world, await world.accountToken('globex', 'robot')).ask(),
    },
  },
  {
    name: 'a websocket protocol with a token, where there is no websocket',
    by: ['nobody'],
    attack: (world) => ({ path: SECRET, headers: asProtocol(world, 'alice') }),
    expect: refusedWith(401, 403),
    control: { try: { path: SECRET } },
  },
  {
    name: 'a watch by websocket',
    attack: (world, who) => ({
      path: '/api/v1/namespaces/acme/secrets?watch=true',
      via: 'websocket',
      headers: asProtocol(world, who),
      until: (text) => text.length > 0,
    }),
    expect: refusedWith(403),
    control: {
      by: ['operator'],
      try: { path: `${LIST}?watch=true`, until: (text) => text.includes('\n') },
    },
  },
];

function asProtocol(world: World, who: Who): Record<string, string> {
  const { token = '' } = typeof who === 'string' ? world.credentials[who] : who;
  const carried = Buffer.from(token).toString('base64url');
  const protocol = `base64url.bearer.authorization.k8s.io.${carried}`;
  return { 'sec-websocket-protocol': `${protocol}, base64.binary.k8s.io` };
}

export const TOKEN_ATTEMPTS: Attempt[] = [
  ...forged,
  ...shown,
  ...inQuery,
  ...certified,
  ...outlived,
];
