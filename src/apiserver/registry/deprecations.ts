import type { ResourceRow } from '../../api/schema/schema.ts';

/** Since when a kind is deprecated, and what is to be used instead. */
const DEPRECATIONS: Record<string, { since: string; instead?: string }> = {
  'v1/componentstatuses': { since: 'v1.19+' },
  'v1/endpoints': { since: 'v1.33+', instead: 'discovery.k8s.io/v1 EndpointSlice' },
};

/** What every request for a deprecated kind is warned of; undefined for all others. */
export function deprecationOf({ group, version, resource, kind }: ResourceRow): string | undefined {
  const groupVersion = group ? `${group}/${version}` : version;
  const found = DEPRECATIONS[`${groupVersion}/${resource}`];
  if (!found) return undefined;
  const instead = found.instead ? `; use ${found.instead}` : '';
  return `${groupVersion} ${kind} is deprecated in ${found.since}${instead}`;
}
