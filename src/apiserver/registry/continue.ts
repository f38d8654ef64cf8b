import { badRequest } from '../../api/status.ts';

/** Where a paged list goes on: after which key, and at which revision. */
export interface Continue {
  /** -1: at whatever is newest, for a list whose first revision is gone. */
  revision: number;
  after: { namespace: string; name: string };
}

const VERSION = 'meta.k8s.io/v1';
const TOKEN_LENGTH_MAX = 4096;
/** Sorts before everything a name may contain, so that `start` is the next possible key. */
const TERMINATOR = '\u0000';

export function encodeContinue(value: Continue): string {
  const { namespace, name } = value.after;
  const start = `${namespace ? `${namespace}/` : ''}${name}${TERMINATOR}`;
  const json = JSON.stringify({ v: VERSION, rv: value.revision, start });
  return Buffer.from(json, 'utf8').toString('base64url');
}

/** @throws StatusError 400 when the token was not made by a server of this kind */
export function decodeContinue(token: string): Continue {
  const broken = (why: string) => badRequest(`continue key is not valid: ${why}`);
  if (token.length > TOKEN_LENGTH_MAX) throw broken('it is too long');
  let parsed: { v?: unknown; rv?: unknown; start?: unknown };
  try {
    parsed = JSON.parse(Buffer.from(token, 'base64url').toString('utf8'));
  } catch {
    throw broken('it is not base64url encoded JSON');
  }
  if (typeof parsed !== 'object' || parsed === null) throw broken('it is not an object');
  const { v, rv, start } = parsed;
  if (v !== VERSION) throw broken('server does not recognize this encoded version');
  if (!Number.isSafeInteger(rv) || ((rv as number) <= 0 && rv !== -1)) {
    throw broken('incorrect encoded start resourceVersion');
  }
  if (typeof start !== 'string' || start === '' || start.startsWith('/')) {
    throw broken('encoded start key is not valid');
  }
  const path = start.endsWith(TERMINATOR) ? start.slice(0, -1) : start;
  const slash = path.indexOf('/');
  const after = { namespace: slash < 0 ? '' : path.slice(0, slash), name: path.slice(slash + 1) };
  return { revision: rv as number, after };
}
