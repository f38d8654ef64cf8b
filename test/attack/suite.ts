import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { CLUSTER_ATTEMPTS } from './attempts/cluster.ts';
import { IMPERSONATION_ATTEMPTS } from './attempts/impersonation.ts';
import { TOKEN_ATTEMPTS } from './attempts/tokens.ts';
import { NAME_ATTEMPTS } from './attempts/names.ts';
import { RIGHTS_ATTEMPTS } from './attempts/rights.ts';
import { IDENTITY_ATTEMPTS } from './attempts/identity.ts';
import { LIST_ATTEMPTS } from './attempts/lists.ts';
import { NODE_ATTEMPTS } from './attempts/nodes.ts';
import { OBJECT_ATTEMPTS } from './attempts/objects.ts';
import { FLOOD_ATTEMPTS } from './attempts/flood.ts';
import { PATH_ATTEMPTS } from './attempts/paths.ts';
import { KIND_ATTEMPTS } from './attempts/kinds.ts';
import { make } from './support/attempt.ts';
import type { Attempt } from './support/attempt.ts';
import type { IdentityBackend } from './support/backends.ts';
import { startWorld } from './support/world.ts';
import type { World } from './support/world.ts';

/** What is attempted, by what it is aimed at. */
const TABLES: Record<string, Attempt[]> = {
  'every verb at every kind': KIND_ATTEMPTS,
  'every verb at what is the operators': CLUSTER_ATTEMPTS,
  'tricks with paths and headers': PATH_ATTEMPTS,
  'forged and outlived credentials': TOKEN_ATTEMPTS,
  'tokens and rights of the identity service': IDENTITY_ATTEMPTS,
  'lists, watches, pages and revisions': LIST_ATTEMPTS,
  'pods, services, owners, events': OBJECT_ATTEMPTS,
  'the credentials of a stolen node': NODE_ATTEMPTS,
  'acting as others': IMPERSONATION_ATTEMPTS,
  'time and load': FLOOD_ATTEMPTS,
  'rights, questions and tokens': RIGHTS_ATTEMPTS,
  'names of namespaces and tenants': NAME_ATTEMPTS,
};

/** All attempts of all tables against one server that knows people by this identity service. */
export function attackSuite(open: () => Promise<IdentityBackend>): void {
  describe('a tenant attacks another', () => {
    let backend: IdentityBackend | undefined;
    let world: World;
    before(async () => {
      backend = await open();
      world = await startWorld(backend);
    });
    after(async () => {
      await world?.[Symbol.asyncDispose]();
      await backend?.[Symbol.asyncDispose]();
    });
    for (const [name, attempts] of Object.entries(TABLES)) {
      test(`${name}: ${attempts.length} attempts`, async () => {
        const wrong: string[] = [];
        for (const attempt of attempts) {
          const { leak, blind } = await make(attempt, world);
          if (leak !== undefined) wrong.push(`${attempt.name}: GETS THROUGH: ${leak}`);
          if (blind !== undefined) wrong.push(`${attempt.name}: its control fails: ${blind}`);
        }
        assert.deepEqual(wrong, []);
      });
    }
  });
}
