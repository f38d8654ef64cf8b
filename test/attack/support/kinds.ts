import { productTable } from '../../../src/api/schema/own-kinds.ts';
import type { ResourceRow } from '../../../src/api/schema/schema.ts';
import { qualifiedResource } from '../../../src/api/status.ts';

/** `configmaps`, `deployments.apps` */
export const kindOf = ({ group, resource }: ResourceRow): string =>
  qualifiedResource(group, resource);

export const prefixOf = ({ group, version }: ResourceRow): string =>
  group ? `/apis/${group}/${version}` : `/api/${version}`;

const STORED = 'list';

/** All kinds that the server keeps objects of, each once. */
function stored(namespaced: boolean): ResourceRow[] {
  const rows = new Map<string, ResourceRow>();
  for (const row of productTable().rows()) {
    if (row.namespaced !== namespaced || !row.verbs.includes(STORED)) continue;
    rows.set(kindOf(row), row);
  }
  return [...rows.values()];
}

export const NAMESPACED_KINDS = stored(true);
export const CLUSTER_KINDS = stored(false);
