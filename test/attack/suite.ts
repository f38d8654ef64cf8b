import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { KIND_ATTEMPTS } from './attempts/kinds.ts';
import { make } from './support/attempt.ts';
import type { Attempt } from './support/attempt.ts';
import type { IdentityBackend } from './support/backends.ts';
import { startWorld } from './support/world.ts';
import type { World } from './support/world.ts';

/** What is attempted, by what it is aimed at. */
const TABLES: Record<string, Attempt[]> = {
  'every verb at every kind': KIND_ATTEMPTS,
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
