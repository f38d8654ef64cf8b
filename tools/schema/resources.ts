import type { ResourceFacts } from './facts.ts';

interface Operation {
  'x-kubernetes-action'?: string;
  'x-kubernetes-group-version-kind'?: { group: string; version: string; kind: string };
}

export type Paths = Record<string, Record<string, Operation>>;

const VERB_OF_ACTION: Record<string, string> = {
  post: 'create',
  put: 'update',
  get: 'get',
  list: 'list',
  patch: 'patch',
  delete: 'delete',
  deletecollection: 'deletecollection',
};
const METHODS = ['get', 'post', 'put', 'patch', 'delete'];
const PATH =
  /^\/(?:api|apis\/[^/]+)\/[^/]+\/(?:namespaces\/\{namespace\}\/)?([a-z]+)(\/\{name\}(?:\/([a-z]+))?)?$/;

/**
 * Derives resources, verbs and subresources from a document's paths and `x-kubernetes-action`.
 * `typeOf` names the type of a group, version and kind.
 */
export function resourcesOf(
  group: string,
  version: string,
  paths: Paths,
  typeOf: (group: string, version: string, kind: string) => string,
): ResourceFacts[] {
  const resources = new Map<string, ResourceFacts>();
  const watched = watchedResources(paths);
  for (const path of Object.keys(paths).sort()) {
    const match = PATH.exec(path);
    if (!match || match[1] === 'watch') continue;
    const [, resource = '', item, subresource] = match;
    for (const method of METHODS) {
      const operation = paths[path]?.[method];
      const action = operation?.['x-kubernetes-action'];
      const gvk = operation?.['x-kubernetes-group-version-kind'];
      if (!action || !gvk) continue;
      const verb = VERB_OF_ACTION[action === 'connect' ? method : action];
      if (!verb) throw new Error(`cannot map action "${action}" of ${path} to a verb`);
      const row = resources.get(resource) ?? emptyRow(group, version, resource);
      resources.set(resource, row);
      row.namespaced ||= path.includes('{namespace}');
      if (item && subresource) {
        addVerb(subresourceOf(row, subresource, gvk).verbs, verb);
      } else {
        row.kind = gvk.kind;
        row.type = typeOf(group, version, gvk.kind);
        addVerb(row.verbs, verb);
        if (watched.has(resource)) addVerb(row.verbs, 'watch');
      }
    }
  }
  return [...resources.values()].sort((a, b) => (a.resource < b.resource ? -1 : 1));
}

function emptyRow(group: string, version: string, resource: string): ResourceFacts {
  return {
    group,
    version,
    kind: '',
    resource,
    namespaced: false,
    verbs: [],
    type: '',
    subresources: [],
  };
}

function subresourceOf(
  row: ResourceFacts,
  name: string,
  gvk: { group: string; version: string; kind: string },
): ResourceFacts['subresources'][number] {
  const found = row.subresources.find((candidate) => candidate.name === name);
  if (found) return found;
  const added = { name, verbs: [], ...gvk };
  row.subresources.push(added);
  row.subresources.sort((a, b) => (a.name < b.name ? -1 : 1));
  return added;
}

function addVerb(verbs: string[], verb: string): void {
  if (verbs.includes(verb)) return;
  verbs.push(verb);
  verbs.sort();
}

function watchedResources(paths: Paths): Set<string> {
  const watched = new Set<string>();
  for (const path of Object.keys(paths)) {
    const match = /\/watch\/(?:namespaces\/\{namespace\}\/)?([a-z]+)$/.exec(path);
    if (match?.[1]) watched.add(match[1]);
  }
  return watched;
}
