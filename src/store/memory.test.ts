import { storeConformance } from './conformance.ts';
import { createMemoryStore } from './memory.ts';

storeConformance('memory', (options) => {
  const store = createMemoryStore(options);
  return Promise.resolve({ store, release: () => store.close() });
});
