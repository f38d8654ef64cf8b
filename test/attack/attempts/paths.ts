import { either, hides, refused, shows } from '../support/attempt.ts';
import type { Attempt, Verdict } from '../support/attempt.ts';
import type { Request } from '../support/client.ts';

const SECRET = '/api/v1/namespaces/acme/secrets/target';

/** Ways to write the path of the victim's Secret that one check reads as another's. */
const TRICKS = [
  '/api/v1/namespaces/globex/../acme/secrets/target',
  '/api/v1/namespaces/globex/%2e%2e/acme/secrets/target',
  '/api/v1/namespaces/globex/%2e%2e%2facme/secrets/target',
  '/api/v1/namespaces/globex/secrets/..%2f..%2facme%2fsecrets%2ftarget',
  '/api/v1/namespaces/globex%2f..%2facme/secrets/target',
  '/api/v1/namespaces/globex/..;/acme/secrets/target',
  '/api/v1/namespaces/globex;/../acme/secrets/target',
  '/api/v1/namespaces/globex;acme/secrets/target',
  '/api/v1/namespaces/globex\\..\\acme\\secrets/target',
  '/api/v1/namespaces/globex/%c0%ae%c0%ae/acme/secrets/target',
  '/api/v1/namespaces/globex/namespaces/acme/secrets/target',
  '/api/v1/namespaces/globex,acme/secrets/target',
  '/api/v1/namespaces/globex%0aacme/secrets/target',
  '/api/v1/namespaces/globex/secrets/acme/target',
  '//api/v1/namespaces/acme/secrets/target',
  '/api//v1/namespaces/acme/secrets/target',
  '/api/v1//namespaces/acme/secrets/target',
  '/api/v1/namespaces//acme/secrets/target',
  '/./api/v1/namespaces/acme/secrets/target',
  '/api/v1/namespaces/acme/./secrets/target',
  '/api/v1/namespaces/ACME/secrets/target',
  '/api/v1/namespaces/acme./secrets/target',
  '/api/v1/namespaces/acme%00/secrets/target',
  '/api/v1/namespaces/acme%20/secrets/target',
  '/api/v1/namespaces/%61cme/secrets/target',
  '/api/v1/namespaces/%2561cme/secrets/target',
  '/api/v1/namespaces/%EF%BD%81cme/secrets/target',
  '/API/V1/namespaces/acme/secrets/target',
  '/api/v1/Namespaces/acme/Secrets/target',
  '/api/v1/namespaces/acme/secrets/target/',
  '/api/v1/namespaces/acme/secrets/target%3fx=y',
  '/api/v1/namespaces/acme/secrets/target#/../../globex',
  '/api/v1/namespaces/acme/secrets/target/status',
  '/api/v1/namespaces/acme/secrets/target/finalize',
  '/api/v1/secrets/target?namespace=acme',
  '/api/v1/secrets/target',
  '/api/v1/watch/namespaces/acme/secrets/target',
  '/api/v1/watch/namespaces/acme/secrets',
  '/api/v1/proxy/namespaces/acme/services/target',
  '/api/v1/namespaces/*/secrets/target',
  '/api/v1/namespaces/%2a/secrets/target',
  '/api/v1/namespaces/-/secrets/target',
  '/apis//v1/namespaces/acme/secrets/target',
  '/apis/v1/namespaces/acme/secrets/target',
  '/apis/core/v1/namespaces/acme/secrets/target',
  'https://127.0.0.1/api/v1/namespaces/acme/secrets/target',
  '*',
];

/** The stream or the connection was ended: the request was no HTTP. */
const isCut: Verdict = ({ status, text }) =>
  status === 0 && text === '' ? undefined : `${status} ${text}`;

const written = (via: 'http1' | 'http2') =>
  TRICKS.map((path): Attempt => ({
    name: `${via}: ${path}`,
    attack: { path, via },
    // `*` is answered for the server as a whole.
    expect: either(refused, isCut),
    control: { try: { path: SECRET, via }, expect: shows('canary-') },
  }));

/** Headers that some proxy, framework or server believes. */
const HEADERS: Record<string, string>[] = [
  { 'x-original-url': SECRET },
  { 'x-rewrite-url': SECRET },
  { 'x-forwarded-prefix': '/api/v1/namespaces/acme' },
  { 'x-http-method-override': 'DELETE' },
  { 'x-remote-user': 'kubernetes-admin', 'x-remote-group': 'system:masters' },
  { 'x-forwarded-user': 'kubernetes-admin' },
  { 'x-remote-extra-hypernetes.io%2fproject-id': 'acme' },
  { 'x-project-id': 'acme' },
  { 'x-auth-token': 'forged' },
  { 'x-subject-token': 'forged' },
  { 'ssl-client-verify': 'SUCCESS', 'ssl-client-subject-dn': 'CN=admin,O=system:masters' },
  { forwarded: 'for=127.0.0.1;by=127.0.0.1' },
  { 'x-forwarded-for': '127.0.0.1', 'x-real-ip': '127.0.0.1' },
];

const believed = HEADERS.map((headers): Attempt => ({
  name: `headers ${Object.keys(headers).join(', ')}`,
  attack: { path: SECRET, headers },
  control: { try: { path: SECRET }, expect: shows('canary-') },
}));

const list = '/api/v1/namespaces/globex/secrets';

/** Queries that name the victim on paths that are the attacker's. */
const queries = [
  `${list}?namespace=acme`,
  `${list}?fieldSelector=metadata.namespace%3Dacme`,
  '/api/v1/secrets?fieldSelector=metadata.namespace%3Dacme',
  '/api/v1/secrets?fieldSelector=metadata.namespace%21%3Dglobex',
  '/api/v1/secrets?fieldSelector=metadata.name%3Dtarget',
  '/api/v1/secrets?labelSelector=app%3Dtarget',
  '/api/v1/secrets?labelSelector=mark',
  '/api/v1/secrets?namespace=acme&allNamespaces=true',
  '/api/v1/secrets?tenant=acme',
  '/api/v1/secrets?partition=acme',
].map((path): Attempt => ({
  name: `query ${path}`,
  attack: { path },
  expect: either(hides('"namespace":"acme'), refused),
  control: { try: { path: '/api/v1/secrets?labelSelector=mark' }, expect: shows('canary-') },
}));

const HOST = 'Host: 127.0.0.1\r\n';
const ME = 'Authorization: Bearer TOKEN\r\n';
const CLOSE = 'Connection: close\r\n';
const hidden = `GET ${SECRET} HTTP/1.1\r\n${HOST}${ME}${CLOSE}\r\n`;

/** Requests that two parsers understand differently. */
const SMUGGLED: Record<string, string> = {
  'a length and chunks': `POST /version HTTP/1.1\r\n${HOST}${ME}Content-Length: ${hidden.length + 5}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n${hidden}`,
  'two lengths': `GET /version HTTP/1.1\r\n${HOST}${ME}Content-Length: 0\r\nContent-Length: ${hidden.length}\r\n\r\n${hidden}`,
  'a folded header': `GET ${SECRET} HTTP/1.1\r\n${HOST}X-A: b\r\n Authorization: Bearer x\r\n${ME}${CLOSE}\r\n`,
  'a bare line feed': `GET ${SECRET} HTTP/1.1\n${HOST}${ME}${CLOSE}\r\n`,
  'two credentials': `GET ${SECRET} HTTP/1.1\r\n${HOST}${ME}Authorization: Bearer none\r\n${CLOSE}\r\n`,
  'HTTP/1.0': `GET ${SECRET} HTTP/1.0\r\n${HOST}${ME}\r\n`,
  'no version': `GET ${SECRET}\r\n\r\n`,
  'an absolute target': `GET https://acme${SECRET} HTTP/1.1\r\n${HOST}${ME}${CLOSE}\r\n`,
  'a second request behind the first': `GET /version HTTP/1.1\r\n${HOST}${ME}\r\n${hidden}`,
  'the other protocol in the clear': `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n`,
};

const smuggled = Object.entries(SMUGGLED).map(([name, bytes]): Attempt => ({
  name: `raw: ${name}`,
  attack: (world, who) => world.client.raw(credentialOf(world, who), bytes),
  // What is answered beside is the attacker's own; what it has of the victim's is looked for.
  expect: () => undefined,
  control: {
    try: (world, who) => world.client.raw(credentialOf(world, who), hidden),
    expect: shows('canary-'),
  },
}));

type World = Parameters<Exclude<Attempt['attack'], Request>>[0];
type Who = Parameters<Exclude<Attempt['attack'], Request>>[1];
const credentialOf = (world: World, who: Who) =>
  typeof who === 'string' ? world.credentials[who] : who;

export const PATH_ATTEMPTS: Attempt[] = [
  ...written('http1'),
  ...written('http2'),
  ...believed,
  ...queries,
  ...smuggled,
];
