import type { Pod } from '../api/types.generated.ts';
import type { Clock } from '../base/clock.ts';
import type { Client } from '../client/client.ts';
import { SERVICE_ACCOUNTS } from '../client/resources.ts';

/** Service account tokens for projected volumes, each bound to one pod. */
export interface TokenSource {
  /** From the cache while it has more than a fifth of its life left and is younger than a day. */
  token(pod: Pod, request: { audience: string; expirationSeconds: number }): Promise<string>;
  /** Drops the tokens of a pod that is gone. */
  forget(podUid: string): void;
}

interface TokenRequestStatus {
  status?: { token?: string; expirationTimestamp?: string };
}

const AGE_MAX_MS = 24 * 3600_000;
/** The part of a token's life after which it is replaced (Kubernetes: 80 %). */
const REFRESH_FRACTION = 0.8;

export function createTokenSource(client: Client, clock: Clock): TokenSource {
  const cache = new Map<string, { token: string; refreshMs: number }>();
  return {
    async token(pod, { audience, expirationSeconds }) {
      const { namespace, name, uid } = pod.metadata;
      const key = `${uid}/${audience}/${expirationSeconds}`;
      const found = cache.get(key);
      if (found && clock.nowMs() < found.refreshMs) return found.token;
      const account = pod.spec?.serviceAccountName || 'default';
      const answer = await client.post<TokenRequestStatus>(
        SERVICE_ACCOUNTS,
        { namespace, name: account },
        'token',
        {
          apiVersion: 'authentication.k8s.io/v1',
          kind: 'TokenRequest',
          spec: {
            ...(audience ? { audiences: [audience] } : {}),
            expirationSeconds,
            boundObjectRef: { apiVersion: 'v1', kind: 'Pod', name, uid },
          },
        },
      );
      const token = answer.status?.token ?? '';
      const expiresMs = Date.parse(answer.status?.expirationTimestamp ?? '');
      const nowMs = clock.nowMs();
      const lifeMs = Number.isNaN(expiresMs) ? expirationSeconds * 1000 : expiresMs - nowMs;
      cache.set(key, { token, refreshMs: nowMs + Math.min(lifeMs * REFRESH_FRACTION, AGE_MAX_MS) });
      return token;
    },
    forget(podUid) {
      for (const key of cache.keys()) if (key.startsWith(`${podUid}/`)) cache.delete(key);
    },
  };
}
