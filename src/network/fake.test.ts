import { seededRandom } from '../base/random.ts';
import { networkConformance } from './conformance.ts';
import { createFakeNetwork } from './fake.ts';

networkConformance('fake network', async () => ({
  driver: createFakeNetwork({ random: seededRandom(1) }),
  dispose: async () => {},
}));
