import { isDeepStrictEqual } from 'node:util';
import type { KubeObject } from '../../../api/object.ts';
import type { Strategy } from '../strategy.ts';

interface Condition {
  type: string;
  status?: string;
  lastUpdateTime?: string;
  lastTransitionTime?: string;
}

/** Who asks is written into the request by the server: its signer trusts it. */
export const certificateSigningRequestStrategy: Strategy = {
  prepareCreate(request, { user }) {
    const spec = { ...(request.spec as Record<string, unknown> | undefined) };
    delete spec.uid;
    delete spec.extra;
    spec.username = user.name;
    spec.groups = user.groups;
    if (user.uid) spec.uid = user.uid;
    if (Object.keys(user.extra).length > 0) spec.extra = user.extra;
    request.spec = spec;
    request.status = {};
  },
  prepareUpdate(request, old) {
    request.spec = old.spec;
  },
};

/** Approval changes conditions alone, and neither approvals nor denials are ever taken back. */
export function mergeApproval(
  request: KubeObject,
  old: KubeObject,
  now: string,
): { status: Record<string, unknown>; isRevoked: boolean } {
  const before = conditionsOf(old);
  const isFinal = ({ type }: Condition) => type === 'Approved' || type === 'Denied';
  const wanted = conditionsOf(request);
  const isRevoked = before
    .filter(isFinal)
    .some((condition) => !wanted.some((other) => other.type === condition.type));
  const conditions = wanted.map((condition) => {
    const known = before.find((other) => other.type === condition.type);
    if (known && isDeepStrictEqual(known, condition)) return condition;
    return {
      ...condition,
      status: condition.status || 'True',
      lastUpdateTime: condition.lastUpdateTime ?? now,
      lastTransitionTime: known?.lastTransitionTime ?? condition.lastTransitionTime ?? now,
    };
  });
  const status = { ...(old.status as Record<string, unknown> | undefined), conditions };
  return { status, isRevoked };
}

function conditionsOf(request: KubeObject): Condition[] {
  return (request.status as { conditions?: Condition[] } | undefined)?.conditions ?? [];
}
