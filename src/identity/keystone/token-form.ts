/*
 * Whether a text has the form of a token of Keystone. Other bearer tokens (of service accounts, of
 * other issuers) must not be shown to it: they would be secrets given away.
 */

const TOKEN_LENGTH_MAX = 4096;
/** Fernet: the version byte 0x80 and the first three of a time before the year 2514. */
const FERNET = /^gAAAA[A-Za-z0-9_-]{90,}={0,2}$/;
const JWS = /^[A-Za-z0-9_-]+\.([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]+$/;

export function isKeystoneToken(token: string): boolean {
  if (token.length > TOKEN_LENGTH_MAX) return false;
  return FERNET.test(token) || isKeystoneJws(token);
}

/** Keystone's signed tokens name their methods in a claim of its own, and have no issuer. */
function isKeystoneJws(token: string): boolean {
  const payload = JWS.exec(token)?.[1];
  if (payload === undefined) return false;
  try {
    const claims = JSON.parse(Buffer.from(payload, 'base64url').toString('utf8')) as {
      openstack_methods?: unknown;
      iss?: unknown;
    } | null;
    return Array.isArray(claims?.openstack_methods) && claims.iss === undefined;
  } catch {
    return false;
  }
}
