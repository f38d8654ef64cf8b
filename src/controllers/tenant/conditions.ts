import { rfc3339 } from '../../base/clock.ts';
import type { Tenant, TenantStatus } from '../../api/tenancy.ts';

export type TenantCondition = NonNullable<TenantStatus['conditions']>[number];

/** One finding: what is so, in a word for programs and a sentence for people. */
export interface Finding {
  type: string;
  status: 'True' | 'False' | 'Unknown';
  reason: string;
  message: string;
}

/** Conditions keep the time since when they are as they are. */
export function conditionsOf(
  tenant: Tenant,
  findings: Finding[],
  nowMs: number,
): TenantCondition[] {
  const known = tenant.status?.conditions ?? [];
  return findings.map((finding) => {
    const before = known.find(({ type }) => type === finding.type);
    const isSame = before?.status === finding.status;
    return {
      ...finding,
      lastTransitionTime: isSame ? before.lastTransitionTime : rfc3339(nowMs),
      observedGeneration: tenant.metadata.generation ?? 0,
    };
  });
}

/** A few names of many. */
export function someOf(names: string[], most = 5): string {
  const shown = [...names].sort().slice(0, most).join(', ');
  return names.length > most ? `${shown} and ${names.length - most} more` : shown;
}
