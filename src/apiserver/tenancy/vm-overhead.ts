import type { KubeObject } from '../../api/object.ts';
import { VM_OVERHEAD_ANNOTATION } from '../../api/tenant-quota.ts';
import type { ObjectIndex } from '../server/follower.ts';

/** What a VM costs beside what its pod asks for: the most that any node tells of. */
export interface VmOverhead extends ObjectIndex {
  bytes(): number;
}

export function createVmOverhead(): VmOverhead {
  const byNode = new Map<string, number>();
  let most = 0;
  const renew = () => (most = Math.max(0, ...byNode.values()));
  return {
    bytes: () => most,
    set({ metadata }: KubeObject) {
      const text = metadata.annotations?.[VM_OVERHEAD_ANNOTATION] ?? '';
      const bytes = /^\d{1,15}$/.test(text) ? Number(text) : 0;
      if (byNode.get(metadata.name ?? '') === bytes) return;
      byNode.set(metadata.name ?? '', bytes);
      renew();
    },
    delete({ metadata }: KubeObject) {
      byNode.delete(metadata.name ?? '');
      renew();
    },
  };
}
