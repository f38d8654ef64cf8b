import { IdentityForbiddenError, IdentityNotFoundError } from '../../api/identity.ts';
import type { NamedId } from '../../api/identity.ts';
import type { Clock } from '../../base/clock.ts';
import type { KeystoneAnswer } from './http.ts';
import { createLru } from './lru.ts';
import { fields, list, namedId } from './parse.ts';
import type { KeystoneSession } from './session.ts';

/** Who and what Keystone knows: from names to ids, and of domains back. */
export interface Directory {
  /** @throws IdentityNotFoundError */
  domainNamed(name: string): Promise<NamedId>;
  domainOf(id: string): Promise<NamedId>;
  /** @throws IdentityNotFoundError */
  memberNamed(kind: 'User' | 'Group', name: string, domain: string): Promise<NamedId>;
  /** @throws IdentityNotFoundError */
  roleNamed(name: string): Promise<NamedId>;
  /** Forgets domains and roles: something that was remembered turned out to be gone. */
  forget(): void;
}

const REMEMBERED_MS = 30_000;
const REMEMBERED_MAX = 4096;

/** Refuses what Keystone refuses to the service user; a `404` is left to the caller. */
export function expectSuccess(answer: KeystoneAnswer, what: string): void {
  if (answer.status < 400) return;
  const text = `Cannot ${what}: Keystone answers ${answer.status}: ${answer.message}`;
  if (answer.status === 404) throw new IdentityNotFoundError(text);
  throw new IdentityForbiddenError(text);
}

export function createDirectory(session: KeystoneSession, clock: Clock): Directory {
  const remembered = createLru<{ item: NamedId; untilMs: number }>(REMEMBERED_MAX);

  const recall = async (key: string[], ask: () => Promise<NamedId>): Promise<NamedId> => {
    const text = JSON.stringify(key);
    const known = remembered.get(text);
    if (known && clock.monotonicMs() < known.untilMs) return known.item;
    const item = await ask();
    remembered.set(text, { item, untilMs: clock.monotonicMs() + REMEMBERED_MS });
    return item;
  };

  /** The one item of a collection that has exactly this name. */
  const find = async (
    collection: string,
    what: string,
    query: Record<string, string>,
  ): Promise<NamedId> => {
    const request = { method: 'GET' as const, path: `/${collection}`, query };
    const answer = await session.request(request);
    expectSuccess(answer, `look up ${what}`);
    const items = list(fields(answer.body, '')[collection], collection);
    const found = items
      .map((item) => namedId(item, `${collection}[]`))
      .find(({ name }) => name === query['name']);
    if (!found) throw new IdentityNotFoundError(`Cannot look up ${what}: Keystone has none`);
    return found;
  };

  const domainNamed = (name: string) =>
    recall(['domain', name], () => find('domains', `domain "${name}"`, { name }));

  return {
    domainNamed,
    domainOf: (id) =>
      recall(['domainOf', id], async () => {
        const path = `/domains/${encodeURIComponent(id)}`;
        const answer = await session.request({ method: 'GET', path });
        expectSuccess(answer, `look up domain "${id}"`);
        return namedId(fields(answer.body, '')['domain'], 'domain');
      }),
    // Not remembered: people are renamed, and what is granted must not reach another.
    async memberNamed(kind, name, domain) {
      const domain_id = (await domainNamed(domain)).id;
      const what = `${kind.toLowerCase()} "${name}" of domain "${domain}"`;
      return find(`${kind.toLowerCase()}s`, what, { name, domain_id });
    },
    roleNamed: (name) => recall(['role', name], () => find('roles', `role "${name}"`, { name })),
    forget: () => remembered.clear(),
  };
}
