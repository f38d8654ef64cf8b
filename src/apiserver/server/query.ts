import { canonicalTime } from '../../api/time.ts';
import { badRequest } from '../../api/status.ts';

/**
 * A time that a query parameter names, in milliseconds; undefined where there is none.
 *
 * @throws StatusError 400 for what is no RFC 3339 time
 */
export function readTime(query: URLSearchParams, name: string): number | undefined {
  const text = query.get(name);
  if (!text) return undefined;
  if (text.length > 40 || canonicalTime(text) === undefined) {
    throw badRequest(`${name} must be a time such as 2026-01-31T12:00:00Z`);
  }
  return Date.parse(text);
}
