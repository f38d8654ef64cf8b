import { isIP } from 'node:net';
import type { Clock } from '../../base/clock.ts';
import type { Log } from '../../base/log.ts';
import type { Random } from '../../base/random.ts';

export interface KeystoneOptions {
  /** `https://host:port/v3`; a missing `/v3` is added. Plain HTTP only to this machine. */
  url: string;
  /** The service user: it needs to be allowed to validate tokens, best with role `admin`. */
  credentials: KeystoneCredentials;
  /** PEM. Trusted instead of the CAs that Node comes with. */
  caCert?: string;
  /** Lets passwords and tokens pass over networks in clear. @default false */
  isPlainHttpAllowed?: boolean;
  /** Of one question to Keystone, its repetitions included. @default 5 s */
  timeoutMs?: number;
  /** How long a token that was valid goes on while Keystone is away. @default OUTAGE_GRACE_MS */
  outageGraceMs?: number;
  /** How often projects are looked at for changes. @default 10 s */
  pollIntervalMs?: number;
  /** Tokens that are shown to Keystone per second, of known and of new ones each. @default 200 */
  validationsPerS?: number;
  clock?: Clock;
  random?: Random;
  log?: Log;
}

export type KeystoneCredentials =
  | {
      kind: 'password';
      username: string;
      /** Name of the domain. */
      userDomain: string;
      password: string;
      scope: { kind: 'project'; project: string; domain: string } | { kind: 'system' };
    }
  | { kind: 'applicationCredential'; id: string; secret: string };

const isLoopback = (host: string): boolean =>
  host === 'localhost' || host === '[::1]' || (isIP(host) === 4 && host.startsWith('127.'));

/**
 * The base address of the API, without a slash at its end.
 * @throws Error that names what is wrong
 */
export function parseKeystoneUrl(text: string, isPlainHttpAllowed = false): URL {
  const url = URL.parse(text);
  const refuse = (why: string) => new Error(`Cannot use Keystone at "${shown(text)}": ${why}`);
  if (!url) throw refuse('not a URL');
  if (url.protocol !== 'https:' && url.protocol !== 'http:') throw refuse('not http or https');
  if (url.username || url.password) throw refuse('credentials may not be in the URL');
  if (url.search || url.hash) throw refuse('it may not have a query or fragment');
  if (url.protocol === 'http:' && !isPlainHttpAllowed && !isLoopback(url.hostname)) {
    throw refuse('passwords and tokens would pass the network in clear; use https');
  }
  const path = url.pathname.replace(/\/+$/, '');
  url.pathname = path.endsWith('/v3') ? path : `${path}/v3`;
  return url;
}

/** What may be shown of a wrong URL: never a password in it. */
function shown(text: string): string {
  return text.replace(/\/\/[^/@]*@/, '//…@').slice(0, 200);
}
