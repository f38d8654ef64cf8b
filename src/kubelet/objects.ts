import { isStatus } from '../api/status.ts';
import type { ConfigMap, Secret, ServiceAccount } from '../api/types.generated.ts';
import type { Clock } from '../base/clock.ts';
import type { Client } from '../client/client.ts';
import { CONFIG_MAPS, SECRETS, SERVICE_ACCOUNTS } from '../client/resources.ts';
import type { Resource } from '../client/resources.ts';
import type { KubeObject } from '../api/object.ts';

/**
 * ConfigMaps, Secrets and ServiceAccounts that pods of this node name. The node authorizer lets
 * a kubelet get these one by one, never list them; so each is fetched when it is needed and kept
 * for a short while.
 */
export interface ReferencedObjects {
  configMap(namespace: string, name: string, maxAgeMs?: number): Promise<ConfigMap | undefined>;
  secret(namespace: string, name: string, maxAgeMs?: number): Promise<Secret | undefined>;
  serviceAccount(namespace: string, name: string): Promise<ServiceAccount | undefined>;
}

/** Pods of one Deployment start together and name the same objects. */
const MAX_AGE_MS = 2_000;
const ENTRIES_MAX = 1024;

export function createReferencedObjects(client: Client, clock: Clock): ReferencedObjects {
  const entries = new Map<string, { fetchedMs: number; value: Promise<unknown> }>();
  const get = <T extends KubeObject>(
    resource: Resource<T>,
    namespace: string,
    name: string,
    maxAgeMs: number,
  ): Promise<T | undefined> => {
    const path = `${resource.resource}/${namespace}/${name}`;
    const found = entries.get(path);
    const nowMs = clock.monotonicMs();
    if (found && nowMs - found.fetchedMs <= maxAgeMs) return found.value as Promise<T | undefined>;
    const value = client.get(resource, { namespace, name }).catch((error: unknown) => {
      if (isStatus(error, 'NotFound')) return undefined;
      entries.delete(path);
      throw error;
    });
    entries.delete(path);
    entries.set(path, { fetchedMs: nowMs, value });
    const oldest = entries.keys().next().value;
    if (entries.size > ENTRIES_MAX && oldest !== undefined) entries.delete(oldest);
    return value;
  };
  return {
    configMap: (namespace, name, maxAgeMs = MAX_AGE_MS) =>
      get(CONFIG_MAPS, namespace, name, maxAgeMs),
    secret: (namespace, name, maxAgeMs = MAX_AGE_MS) => get(SECRETS, namespace, name, maxAgeMs),
    serviceAccount: (namespace, name) => get(SERVICE_ACCOUNTS, namespace, name, MAX_AGE_MS),
  };
}
