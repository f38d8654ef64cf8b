import { test } from 'node:test';
import { CONFORMANCE_CASES } from './conformance-cases.ts';
import type { HypervisorUnderTest } from './conformance-cases.ts';

/** The cases as tests. All share what `make` gives, as VMs boot slowly. */
export function hypervisorConformance(
  name: string,
  make: () => Promise<HypervisorUnderTest>,
): void {
  test(`${name} hypervisor`, async (t) => {
    const under = await make();
    t.after(() => under.dispose());
    for (const { name: promise, needs, run } of CONFORMANCE_CASES) {
      const absent = needs.filter((capability) => !under.hypervisor.capabilities.has(capability));
      const skip = absent.length > 0 && `it does not declare ${absent.join(', ')}`;
      await t.test(promise, { skip }, ({ signal }) => run(under, signal));
    }
  });
}
