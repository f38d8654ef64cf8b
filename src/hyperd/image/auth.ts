import { IDENTITY_TOKEN_USER } from './registries.ts';
import type { RegistryCredential } from './store.ts';

/** One challenge of a `WWW-Authenticate` header. Scheme and parameter names in lower case. */
export interface Challenge {
  scheme: string;
  parameters: Map<string, string>;
}

const CHALLENGE_CHARS_MAX = 8192;

/** Parses the header leniently: what makes no sense is left out. */
export function parseChallenges(header: string | undefined): Challenge[] {
  const text = (header ?? '').slice(0, CHALLENGE_CHARS_MAX);
  const challenges: Challenge[] = [];
  // A token, then perhaps `=` and a quoted or plain value. A token without it is a scheme.
  const item = /([!#$%&'*+.^_`|~0-9A-Za-z-]+)(?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+)))?/g;
  for (const [, token, quoted, plain] of text.matchAll(item)) {
    const name = (token as string).toLowerCase();
    const value = quoted?.replace(/\\(.)/g, '$1') ?? plain;
    if (value === undefined) challenges.push({ scheme: name, parameters: new Map() });
    else challenges[challenges.length - 1]?.parameters.set(name, value);
  }
  return challenges;
}

export function basicAuthorization(credential: RegistryCredential): string {
  const pair = `${credential.username}:${credential.password}`;
  return `Basic ${Buffer.from(pair, 'utf8').toString('base64')}`;
}

/** What to send to a token server to get a token for `scope`. */
export interface TokenRequest {
  method: 'GET' | 'POST';
  url: URL;
  headers: Record<string, string>;
  body: string | undefined;
}

/**
 * The request for a bearer token that a challenge asks for; undefined where the challenge is
 * unusable. An identity token is traded in as OAuth 2 has it, a password as Docker has it.
 */
export function tokenRequest(
  challenge: Challenge,
  scope: string,
  credential: RegistryCredential | undefined,
): TokenRequest | undefined {
  const url = URL.parse(challenge.parameters.get('realm') ?? '');
  if (!url || url.username !== '' || url.password !== '') return undefined;
  const service = challenge.parameters.get('service');
  if (credential?.username === IDENTITY_TOKEN_USER) {
    const form = new URLSearchParams({
      grant_type: 'refresh_token',
      client_id: 'hypernetes',
      refresh_token: credential.password,
      scope,
    });
    if (service !== undefined) form.set('service', service);
    const headers = { 'content-type': 'application/x-www-form-urlencoded' };
    return { method: 'POST', url, headers, body: form.toString() };
  }
  if (service !== undefined) url.searchParams.set('service', service);
  url.searchParams.append('scope', scope);
  const headers: Record<string, string> = {};
  if (credential) headers['authorization'] = basicAuthorization(credential);
  return { method: 'GET', url, headers, body: undefined };
}

export interface Token {
  value: string;
  lifetimeMs: number;
}

/** The specification's default where a server does not say. */
const TOKEN_LIFETIME_DEFAULT_S = 60;
const TOKEN_LIFETIME_MAX_S = 3600;

/** Reads a token server's answer; undefined where there is no token in it. */
export function parseToken(body: string): Token | undefined {
  let json: Record<string, unknown>;
  try {
    json = JSON.parse(body) as Record<string, unknown>;
  } catch {
    return undefined;
  }
  const value = json?.['token'] ?? json?.['access_token'];
  // The value becomes a header: it must not be able to become two.
  if (typeof value !== 'string' || !/^[\x21-\x7e]+$/.test(value)) return undefined;
  const given = json['expires_in'];
  const seconds = typeof given === 'number' && given > 0 ? given : TOKEN_LIFETIME_DEFAULT_S;
  return { value, lifetimeMs: Math.min(seconds, TOKEN_LIFETIME_MAX_S) * 1000 };
}
