import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { storeConformance } from './conformance.ts';
import { openSqliteStore } from './sqlite.ts';

storeConformance('sqlite', async (options) => {
  const folder = await mkdtemp(join(tmpdir(), 'hypernetes-store-'));
  const store = await openSqliteStore({ path: join(folder, 'store.db'), ...options });
  const release = async () => {
    await store.close();
    await rm(folder, { recursive: true });
  };
  return { store, release };
});
