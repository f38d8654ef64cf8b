import type { Client } from '../../client/client.ts';
import type { Resource } from '../../client/resources.ts';

export interface DiscoveredResource extends Resource {
  verbs: string[];
}

interface GroupList {
  groups: { preferredVersion: { groupVersion: string } }[];
}

interface ResourceList {
  groupVersion: string;
  resources: { name: string; kind: string; namespaced: boolean; verbs: string[] }[];
}

/** Every resource that is served, in its group's preferred version, without subresources. */
export async function discover(client: Client): Promise<DiscoveredResource[]> {
  const { groups } = await client.raw<GroupList>('/apis');
  const paths = groups.map(({ preferredVersion }) => `/apis/${preferredVersion.groupVersion}`);
  const lists = await Promise.all(
    ['/api/v1', ...paths].map((path) => client.raw<ResourceList>(path)),
  );
  return lists.flatMap(({ groupVersion, resources }) => {
    const [version = '', group = ''] = groupVersion.split('/').reverse();
    return resources
      .filter(({ name }) => !name.includes('/'))
      .map(({ name, kind, namespaced, verbs }) => {
        return { group, version, resource: name, kind, namespaced, verbs };
      });
  });
}

export function hasVerbs(resource: DiscoveredResource, ...verbs: string[]): boolean {
  return verbs.every((verb) => resource.verbs.includes(verb));
}
