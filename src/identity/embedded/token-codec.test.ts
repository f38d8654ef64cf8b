import assert from 'node:assert/strict';
import { createHmac, randomBytes, randomInt } from 'node:crypto';
import { test } from 'node:test';
import { seededRandom } from '../../base/random.ts';
import { decodeToken, encodeToken, looksLikeToken, METHODS, SCOPE_KINDS } from './token-codec.ts';
import type { Claims } from './token-codec.ts';

const KEY = { number: 7, secret: randomBytes(32) };
const secretOf = (number: number) => (number === KEY.number ? KEY.secret : undefined);
const hex = () => randomBytes(16).toString('hex');
const audit = () => randomBytes(16).toString('base64url');

const claims = (changes: Partial<Claims> = {}): Claims => ({
  methods: ['password'],
  userId: hex(),
  userEpoch: 3,
  scopeKind: 'project',
  scopeId: hex(),
  scopeEpoch: 1,
  issuedAtMs: 1_700_000_000_123,
  expiresAtMs: 1_700_003_600_123,
  auditId: audit(),
  chainId: audit(),
  ...changes,
});

test('a token says what was put in, and the usual ones are short', () => {
  const credential = claims({ methods: ['application_credential'], credentialId: hex() });
  const { scopeId: _, scopeEpoch: __, ...free } = claims({ scopeKind: 'unscoped' });
  const all = [
    claims(),
    claims({ methods: ['password', 'token'] }),
    credential,
    free,
    { ...free, scopeKind: 'system' as const },
    claims({ scopeKind: 'domain', scopeId: 'default', userId: 'ü'.repeat(20) }),
  ];
  for (const wanted of all) {
    const token = encodeToken(wanted, KEY);
    assert.ok(token.length <= 255, `${token.length} characters`);
    assert.match(token, /^hnt_[\w-]+$/);
    assert.deepEqual(decodeToken(token, secretOf), wanted);
  }
});

test('a token that was changed in any bit, cut or prolonged is refused', () => {
  const token = encodeToken(claims(), KEY);
  const bytes = Buffer.from(token.slice(4), 'base64url');
  for (let bit = 0; bit < bytes.length * 8; bit += 1) {
    const forged = Buffer.from(bytes);
    forged[bit >> 3] = (forged[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    assert.equal(decodeToken(`hnt_${forged.toString('base64url')}`, secretOf), undefined);
  }
  for (let length = 0; length < token.length; length += 1) {
    assert.equal(decodeToken(token.slice(0, length), secretOf), undefined);
  }
  for (const more of ['A', 'AAAA', '=', ' ', '\n', '.']) {
    assert.equal(decodeToken(token + more, secretOf), undefined, JSON.stringify(more));
    assert.equal(decodeToken(more + token, secretOf), undefined);
  }
});

test('one token has one text', () => {
  const token = encodeToken(claims({ methods: ['token'] }), KEY);
  const last = token.at(-1) ?? '';
  const bytes = Buffer.from(token.slice(4), 'base64url');
  const twins = [...'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_']
    .filter((letter) => letter !== last)
    .map((letter) => token.slice(0, -1) + letter)
    .filter((twin) => Buffer.from(twin.slice(4), 'base64url').equals(bytes));
  const padded = bytes.length % 3 !== 0;
  assert.equal(twins.length > 0, padded);
  for (const twin of twins) assert.equal(decodeToken(twin, secretOf), undefined);
});

test('a token of another key is refused, under whatever number', () => {
  const other = { number: 7, secret: randomBytes(32) };
  assert.equal(decodeToken(encodeToken(claims(), other), secretOf), undefined);
  const unknown = { number: 8, secret: KEY.secret };
  assert.equal(decodeToken(encodeToken(claims(), unknown), secretOf), undefined);
  const empty = { number: 7, secret: Buffer.alloc(0) };
  assert.equal(decodeToken(encodeToken(claims(), empty), secretOf), undefined);
});

test('another version is refused even with a signature that holds', () => {
  const payload = Buffer.from(encodeToken(claims(), KEY).slice(4), 'base64url').subarray(0, -32);
  const next = Buffer.from(payload);
  next[0] = 2;
  const tag = createHmac('sha256', KEY.secret).update(next).digest();
  const token = `hnt_${Buffer.concat([next, tag]).toString('base64url')}`;
  assert.equal(decodeToken(token, secretOf), undefined);
});

test('any claims come back, and any text is answered', () => {
  const seed = randomInt(2 ** 31);
  console.log(`seed ${seed}`);
  const random = seededRandom(seed);
  const pick = <T>(items: readonly T[]) => items[Math.floor(random.next() * items.length)] as T;
  const id = () => (random.next() < 0.5 ? random.uuid().replaceAll('-', '') : pick(['a', 'é-1']));
  for (let round = 0; round < 500; round += 1) {
    const scopeKind = pick(SCOPE_KINDS);
    const methods = METHODS.filter(() => random.next() < 0.5);
    const scoped = scopeKind === 'project' || scopeKind === 'domain';
    const wanted: Claims = {
      methods,
      userId: id(),
      userEpoch: Math.floor(random.next() * 2 ** 32),
      scopeKind,
      ...(scoped && { scopeId: id(), scopeEpoch: Math.floor(random.next() * 2 ** 32) }),
      ...(methods.includes('application_credential') && { credentialId: id() }),
      issuedAtMs: Math.floor(random.next() * 2 ** 48),
      expiresAtMs: Math.floor(random.next() * 2 ** 48),
      auditId: Buffer.from(random.bytes(16)).toString('base64url'),
      chainId: Buffer.from(random.bytes(16)).toString('base64url'),
    };
    const token = encodeToken(wanted, KEY);
    assert.deepEqual(decodeToken(token, secretOf), wanted);
    const noise = Buffer.from(random.bytes(Math.floor(random.next() * 200)));
    assert.equal(decodeToken(`hnt_${noise.toString('base64url')}`, secretOf), undefined);
    assert.equal(decodeToken(noise.toString('latin1'), secretOf), undefined);
  }
});

test('the form alone tells what is sent on', () => {
  assert.ok(looksLikeToken(encodeToken(claims(), KEY)));
  for (const text of ['', 'hnt_', 'hnt_a.b', 'eyJhbGciOiJSUzI1NiJ9.e30.x', 'hnt_ü', 'gAAAAAB']) {
    assert.equal(looksLikeToken(text), false, text);
  }
  assert.equal(looksLikeToken(`hnt_${'A'.repeat(509)}`), false);
});
