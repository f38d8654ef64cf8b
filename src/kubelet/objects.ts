import { isStatus } from '../api/status.ts';
import type { ConfigMap, Secret, Service, ServiceAccount } from '../api/types.generated.ts';
import type { Clock } from '../base/clock.ts';
import type { Client } from '../client/client.ts';
import { CONFIG_MAPS, SECRETS, SERVICE_ACCOUNTS, SERVICES } from '../client/resources.ts';
import type { Resource } from '../client/resources.ts';
import type { KubeObject } from '../api/object.ts';

/**
 * ConfigMaps, Secrets and ServiceAccounts that pods of this node name, and the Services beside
 * them. The node authorizer lets a kubelet get these one by one, and list Services where it has
 * pods; so each is fetched when it is needed and kept for a short while.
 */
export interface ReferencedObjects {
  configMap(namespace: string, name: string, maxAgeMs?: number): Promise<ConfigMap | undefined>;
  secret(namespace: string, name: string, maxAgeMs?: number): Promise<Secret | undefined>;
  serviceAccount(namespace: string, name: string): Promise<ServiceAccount | undefined>;
  /** Of one namespace; those that were known last while the API cannot be asked. */
  services(namespace: string): Promise<Service[]>;
}

/** Pods of one Deployment start together and name the same objects. */
const MAX_AGE_MS = 2_000;
const ENTRIES_MAX = 1024;

export function createReferencedObjects(client: Client, clock: Clock): ReferencedObjects {
  const entries = new Map<string, { fetchedMs: number; value: Promise<unknown> }>();
  const lastServices = new Map<string, Service[]>();
  /** What was fetched a moment ago, or is being fetched. What cannot be fetched is not kept. */
  const fetch = <T>(path: string, maxAgeMs: number, ask: () => Promise<T>): Promise<T> => {
    const found = entries.get(path);
    const nowMs = clock.monotonicMs();
    if (found && nowMs - found.fetchedMs <= maxAgeMs) return found.value as Promise<T>;
    const value = ask().catch((error: unknown) => {
      entries.delete(path);
      throw error;
    });
    entries.delete(path);
    entries.set(path, { fetchedMs: nowMs, value });
    dropOldest(entries);
    return value;
  };
  const get = <T extends KubeObject>(
    resource: Resource<T>,
    namespace: string,
    name: string,
    maxAgeMs: number,
  ): Promise<T | undefined> => {
    const path = `${resource.resource}/${namespace}/${name}`;
    return fetch(path, maxAgeMs, () =>
      client.get(resource, { namespace, name }).catch((error: unknown) => {
        if (isStatus(error, 'NotFound')) return undefined;
        throw error;
      }),
    );
  };
  const services = async (namespace: string): Promise<Service[]> => {
    try {
      const ask = () => client.listAll(SERVICES, { namespace });
      const { items } = await fetch(`${SERVICES.resource}/${namespace}`, MAX_AGE_MS, ask);
      lastServices.delete(namespace);
      lastServices.set(namespace, items);
      dropOldest(lastServices);
      return items;
    } catch (error) {
      // A container that starts again does not wait for the API to come back.
      const last = lastServices.get(namespace);
      if (last) return last;
      throw error;
    }
  };
  return {
    configMap: (namespace, name, maxAgeMs = MAX_AGE_MS) =>
      get(CONFIG_MAPS, namespace, name, maxAgeMs),
    secret: (namespace, name, maxAgeMs = MAX_AGE_MS) => get(SECRETS, namespace, name, maxAgeMs),
    serviceAccount: (namespace, name) => get(SERVICE_ACCOUNTS, namespace, name, MAX_AGE_MS),
    services,
  };
}

/** Entries are in the order in which they were fetched. */
function dropOldest(entries: Map<string, unknown>): void {
  const oldest = entries.keys().next().value;
  if (entries.size > ENTRIES_MAX && oldest !== undefined) entries.delete(oldest);
}
