import { identityConformance } from '../conformance.ts';
import { createApiHarness } from '../testing/api-harness.ts';
import { createEmbeddedProvider } from './provider.ts';
import { startRig } from './testing/rig.ts';

identityConformance('embedded', async () => {
  const rig = await startRig();
  const harness = await createApiHarness({
    provider: createEmbeddedProvider(rig.identity),
    admin: { username: 'admin', password: rig.adminPassword, domain: 'Default' },
    advance: (ms) => rig.clock.advance(ms),
    async call({ method, path, headers, body }) {
      const answer = await rig.call(method, path, { headers, body });
      const lower = Object.entries(answer.headers).map(([name, value]) => [
        name.toLowerCase(),
        value,
      ]);
      return { ...answer, headers: Object.fromEntries(lower) as Record<string, string> };
    },
  });
  return { harness, dispose: () => rig.close() };
});
