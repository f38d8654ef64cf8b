import { systemClock } from '../../src/base/clock.ts';
import { silentLog } from '../../src/base/log.ts';
import { openImageStore } from '../../src/hyperd/image/index.ts';
import { plainRegistries } from '../../src/hyperd/image/testing/upstream.ts';

/** A process that pulls an image, to be killed on the way. Arguments: directory, host, reference. */
const [directory = '', host = '', reference = ''] = process.argv.slice(2);
const store = await openImageStore({
  directory,
  registries: plainRegistries([host]),
  clock: systemClock,
  log: silentLog,
});
process.stdout.write('pulling\n');
const { id } = await store.pull({ reference, credentials: [] });
await store.acquire(id, 'child');
process.stdout.write(`${id}\n`);
await store.remove(reference).catch(() => {});
await store.release(id, 'child');
await store.remove(reference);
await store.close();
