import { createHmac, timingSafeEqual } from 'node:crypto';
import { assert } from '../../base/assert.ts';

/*
 * A token is its claims in binary, signed: nothing of it is looked up before the signature holds.
 *
 *   text    = "hnt_" base64url(payload tag)
 *   payload = version:1 key:4 methods:1 scope:1 issued:6 expires:6 audit:16 chain:16
 *             user:id userEpoch:4 [scope:id scopeEpoch:4] [credential:id]
 *   tag     = HMAC-SHA-256 of the payload, 32 bytes
 *   id      = 00 and the 16 bytes of 32 hexadecimal digits, or its length and its text
 *
 * Times are milliseconds since the epoch; numbers are big-endian.
 */

const TOKEN_PREFIX = 'hnt_';
export const TOKEN_LENGTH_MAX = 512;

const VERSION = 1;
const TAG_BYTES = 32;
const ID_LENGTH_MAX = 64;
export const AUDIT_ID_BYTES = 16;

export const METHODS = ['password', 'token', 'application_credential'] as const;
export type Method = (typeof METHODS)[number];

export const SCOPE_KINDS = ['unscoped', 'project', 'domain', 'system'] as const;
export type ScopeKind = (typeof SCOPE_KINDS)[number];

export interface Claims {
  methods: Method[];
  userId: string;
  userEpoch: number;
  scopeKind: ScopeKind;
  /** Of a project or domain. */
  scopeId?: string;
  scopeEpoch?: number;
  credentialId?: string;
  issuedAtMs: number;
  expiresAtMs: number;
  /** Base64url, as Keystone shows them. */
  auditId: string;
  /** Audit id of the token that the chain began with: its own where it began one. */
  chainId: string;
}

const FORM = /^hnt_[A-Za-z0-9_-]+$/;
const UUID_HEX = /^[0-9a-f]{32}$/;

/** Whether a text has the form of such a token. */
export function looksLikeToken(text: string): boolean {
  return text.length <= TOKEN_LENGTH_MAX && FORM.test(text);
}

export function encodeToken(claims: Claims, key: { number: number; secret: Buffer }): string {
  const parts: Buffer[] = [];
  const head = Buffer.alloc(7);
  head[0] = VERSION;
  head.writeUInt32BE(key.number, 1);
  head[5] = METHODS.reduce((bits, method, i) => bits | (+claims.methods.includes(method) << i), 0);
  head[6] = SCOPE_KINDS.indexOf(claims.scopeKind);
  const times = Buffer.alloc(12);
  times.writeUIntBE(claims.issuedAtMs, 0, 6);
  times.writeUIntBE(claims.expiresAtMs, 6, 6);
  parts.push(head, times, auditBytes(claims.auditId), auditBytes(claims.chainId));
  parts.push(idBytes(claims.userId), uint32(claims.userEpoch));
  if (claims.scopeId !== undefined) {
    parts.push(idBytes(claims.scopeId), uint32(claims.scopeEpoch ?? 0));
  }
  if (claims.credentialId !== undefined) parts.push(idBytes(claims.credentialId));
  const payload = Buffer.concat(parts);
  const token = Buffer.concat([payload, tagOf(payload, key.secret)]);
  return TOKEN_PREFIX + token.toString('base64url');
}

/**
 * The claims of a token whose signature holds; undefined for every other text. Says nothing of
 * whether it expired or was revoked.
 */
export function decodeToken(
  text: string,
  secretOf: (keyNumber: number) => Buffer | undefined,
): Claims | undefined {
  if (!looksLikeToken(text)) return undefined;
  const encoded = text.slice(TOKEN_PREFIX.length);
  const bytes = Buffer.from(encoded, 'base64url');
  // One token has one text: unused bits at its end are zero.
  if (bytes.length <= TAG_BYTES + 5 || bytes.toString('base64url') !== encoded) return undefined;
  const payload = bytes.subarray(0, -TAG_BYTES);
  const secret = secretOf(payload.readUInt32BE(1));
  if (!secret || payload[0] !== VERSION) return undefined;
  if (!timingSafeEqual(tagOf(payload, secret), bytes.subarray(-TAG_BYTES))) return undefined;
  return readClaims(payload);
}

function readClaims(payload: Buffer): Claims {
  let at = 5;
  const take = (length: number) => {
    assert(at + length <= payload.length, 'a signed token is as long as it says');
    at += length;
    return payload.subarray(at - length, at);
  };
  const takeId = () => {
    const length = take(1).readUInt8();
    return length === 0 ? take(16).toString('hex') : take(length).toString('utf8');
  };
  const bits = take(1).readUInt8();
  const scopeKind = SCOPE_KINDS[take(1).readUInt8()];
  assert(scopeKind, 'a signed token has a scope');
  const claims: Claims = {
    methods: METHODS.filter((_, i) => bits & (1 << i)),
    scopeKind,
    issuedAtMs: take(6).readUIntBE(0, 6),
    expiresAtMs: take(6).readUIntBE(0, 6),
    auditId: take(AUDIT_ID_BYTES).toString('base64url'),
    chainId: take(AUDIT_ID_BYTES).toString('base64url'),
    userId: takeId(),
    userEpoch: take(4).readUInt32BE(),
  };
  if (scopeKind === 'project' || scopeKind === 'domain') {
    claims.scopeId = takeId();
    claims.scopeEpoch = take(4).readUInt32BE();
  }
  if (claims.methods.includes('application_credential')) claims.credentialId = takeId();
  assert(at === payload.length, 'a signed token ends after its claims');
  return claims;
}

function tagOf(payload: Buffer, secret: Buffer): Buffer {
  return createHmac('sha256', secret).update(payload).digest();
}

function auditBytes(id: string): Buffer {
  const bytes = Buffer.from(id, 'base64url');
  assert(bytes.length === AUDIT_ID_BYTES, 'an audit id has 16 bytes');
  return bytes;
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

function idBytes(id: string): Buffer {
  if (UUID_HEX.test(id)) return Buffer.from(`00${id}`, 'hex');
  const text = Buffer.from(id);
  assert(text.length > 0 && text.length <= ID_LENGTH_MAX, 'an id has 1 to 64 bytes');
  return Buffer.concat([Buffer.of(text.length), text]);
}
