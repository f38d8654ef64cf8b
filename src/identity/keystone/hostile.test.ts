import assert from 'node:assert/strict';
import { test } from 'node:test';
import { describeError } from '../../base/log.ts';
import { createKeystoneProvider } from './provider.ts';
import type { KeystoneOptions } from './provider.ts';
import {
  CREDENTIALS,
  failure,
  healthy,
  reply,
  startScripted,
  tokenBody,
} from './testing/scripted.ts';
import type { Script } from './testing/scripted.ts';

const TOKEN = `gAAAAA${'x'.repeat(177)}`;

function provide(url: string, options: Partial<KeystoneOptions> = {}) {
  return createKeystoneProvider({ url, credentials: CREDENTIALS, timeoutMs: 300, ...options });
}

const isUnavailable = { name: 'IdentityUnavailableError' };
const { token: good } = tokenBody();

/** Answers that say nothing about a token, and what the error has to say. */
const NONSENSE: Record<string, [answer: string | undefined, says: RegExp]> = {
  'no answer': [undefined, /no answer in 300 ms/],
  'a closed connection': ['', /socket hang up/],
  'another protocol': ['SSH-2.0-OpenSSH_9.2\r\n', /Parse Error/],
  'a change of protocol': ['HTTP/1.1 101 X\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n', /closed/],
  'a page': [reply(200, '<html>welcome</html>'), /not in JSON: <html>welcome/],
  'a page for 404': [reply(404, '<html>nothing</html>'), /404, not in JSON/],
  '404 of another service': [reply(404, { detail: 'no' }), /not in Keystone's form/],
  '404 in another code': [reply(404, { error: { code: 400, message: 'x' } }), /Keystone's form/],
  '404 with null': [reply(404, 'null'), /Keystone's form/],
  'an empty 200': [reply(200), /is not an object/],
  null: [reply(200, 'null'), /is not an object/],
  'a list': [reply(200, []), /is not an object/],
  'half an answer': [reply(200, '{"token"', { 'content-length': '900' }), /aborted/],
  'a redirect': [reply(302, '', { location: 'http://192.0.2.1/v3' }), /redirects \(302\)/],
  'an error': [failure(500), /it answers 500/],
  'being busy': [failure(429), /it answers 429/],
  'no UTF-8': ['HTTP/1.1 200 X\r\nContent-Length: 2\r\n\r\n\xff\xfe', /not UTF-8/],
  'a large body': [reply(200, `{"x":"${'x'.repeat(2 << 20)}"}`), /larger than 1048576 bytes/],
  'large headers': [reply(200, '{}', { x: 'x'.repeat(64 << 10) }), /Header overflow/],
  'deep nesting': [reply(200, '['.repeat(500_000)), /not in JSON|is not/],
  'no user': [reply(200, tokenBody({ user: undefined })), /"token.user" is not an object/],
  'no name': [reply(200, tokenBody({ user: { ...good.user, name: '' } })), /token.user.name/],
  'an id that is a path': [
    reply(200, tokenBody({ user: { ...good.user, id: '../x' } })),
    /token.user.id/,
  ],
  'no end': [reply(200, tokenBody({ expires_at: 'never' })), /token.expires_at/],
  'two scopes': [reply(200, tokenBody({ system: { all: true } })), /scoped to one of/],
  'no domain': [reply(200, tokenBody({ project: { id: 'p', name: 'x' } })), /project.domain/],
  'roles that are none': [reply(200, tokenBody({ roles: 'admin' })), /"token.roles"/],
  'a token that ended long ago': [reply(200, tokenBody({}, 0)), /ended \d+ s ago/],
  'another token': [
    reply(200, tokenBody(), { 'x-subject-token': `${TOKEN}x` }),
    /the answer is of another/,
  ],
  'refusing to tell': [failure(403, 'You may not'), /answers 403: You may not/],
  'refusing the service user': [failure(401), /Cannot ask Keystone as service user/],
};

test('an answer that is none is never taken for "invalid", nor for a token', async () => {
  await using server = await startScripted(() => undefined);
  for (const [what, [answer, says]] of Object.entries(NONSENSE)) {
    server.script = healthy(() => answer);
    const provider = provide(server.url);
    try {
      const error = await provider.validate(TOKEN).then(
        (got) => assert.fail(`${what}: ${JSON.stringify(got)}`),
        (thrown: unknown) => thrown as Error,
      );
      assert.equal(error.name, isUnavailable.name, `${what}: ${error.stack}`);
      assert.match(describeError(error), says, what);
      // A control: nothing of that is remembered.
      server.script = healthy(() => reply(200, tokenBody()));
      assert.equal((await provider.validate(TOKEN))?.user.name, 'alice', what);
    } finally {
      await provider.close();
    }
  }
});

test('what Keystone answers with a slow drip ends with the time limit', async () => {
  const head = 'HTTP/1.1 200 X\r\nContent-Length: 100000\r\n\r\n';
  await using server = await startScripted(healthy(() => undefined));
  const provider = provide(server.url);
  server.script = healthy(() => undefined);
  const startMs = performance.now();
  await assert.rejects(provider.validate(TOKEN), isUnavailable);
  assert.ok(performance.now() - startMs < 3_000);
  server.script = healthy(() => `${head}{`);
  await assert.rejects(provider.validate(TOKEN), isUnavailable);
  await provider.close();
});

test('close() ends what is under way', async () => {
  await using server = await startScripted(() => undefined);
  const provider = provide(server.url, { timeoutMs: 60_000 });
  const asked = [provider.validate(TOKEN), provider.listProjects()];
  for (const one of asked) one.catch(() => {});
  await provider.close();
  for (const one of asked) await assert.rejects(one, isUnavailable);
  await assert.rejects(provider.getProject('x'), isUnavailable);
});

test('questions are repeated after a failure that passes, and writes are not', async () => {
  await using server = await startScripted(() => undefined);
  let failures = 2;
  server.script = healthy(() => ((failures -= 1) >= 0 ? failure(503) : reply(200, tokenBody())));
  const provider = provide(server.url, { timeoutMs: 5_000 });
  assert.ok(await provider.validate(TOKEN));
  const isWrite = ({ method, path }: { method: string; path: string }) =>
    method === 'POST' && path === '/v3/projects';
  const others = server.script;
  server.script = (request) => (isWrite(request) ? failure(503) : others(request));
  const made = provider.createProject({ name: 'x', domainId: 'default', enabled: true });
  await assert.rejects(made, isUnavailable);
  assert.equal(server.requests.filter((line) => line === 'POST /v3/projects').length, 1);
  await provider.close();
});

test('a service user that is refused is not tried again and again', async () => {
  await using server = await startScripted(() => failure(401, 'wrong password'));
  const provider = provide(server.url);
  for (let round = 0; round < 20; round += 1) {
    const failed = provider.validate(TOKEN).catch((error: unknown) => describeError(error));
    assert.match(String(await failed), /Cannot log in to Keystone.*wrong password/);
  }
  assert.equal(server.requests.length, 1);
  await provider.close();
});

test('a list that is not whole is refused: what is missing would pass for deleted', async () => {
  const parts: Record<string, unknown>[] = [
    { projects: [], truncated: true },
    { projects: [], links: { next: 'http://elsewhere/v3/projects?marker=x' } },
    { projects: {} },
    {},
  ];
  await using server = await startScripted(() => undefined);
  const provider = provide(server.url);
  for (const part of parts) {
    const listing: Script = ({ path }) =>
      path.startsWith('/v3/projects') ? reply(200, part) : undefined;
    const others = healthy(() => failure(404));
    server.script = (request) => listing(request) ?? others(request);
    await assert.rejects(provider.listProjects(), isUnavailable, JSON.stringify(part));
  }
  await provider.close();
});

test('an address that cannot be used is refused, and shows no password', () => {
  const wrong: [string, RegExp][] = [
    ['keystone', /not a URL/],
    ['ftp://keystone/v3', /not http or https/],
    ['http://keystone.example.com:5000/v3', /in clear/],
    ['http://127.0.0.1.example.com/v3', /in clear/],
    ['https://admin:hidden@keystone/v3', /credentials/],
    ['https://keystone/v3?x=1', /query/],
  ];
  for (const [url, says] of wrong) {
    assert.throws(
      () => provide(url),
      (error: Error) => says.test(error.message) && !error.message.includes('hidden'),
      url,
    );
  }
});
