import { checkFieldSelector, matchesFieldSelector } from '../../api/schema/fields.ts';
import type { ResourceRow } from '../../api/schema/schema.ts';
import { matchesLabels, parseFieldSelector, parseLabelSelector } from '../../api/selectors.ts';
import type { Entry } from '../../store/store.ts';
import { objectOf } from './resource.ts';

/** Which objects a list or watch shows. Undefined: all of them. */
export type Predicate = (entry: Entry) => boolean;

/**
 * `name` is the one that the request was authorized for, empty for all: whatever the selectors
 * say, nothing else is shown.
 *
 * @throws StatusError 400 when a selector cannot be read or names a field that is not indexed
 */
export function selectionOf(
  row: ResourceRow,
  selectors: { labelSelector: string; fieldSelector: string },
  name: string,
): Predicate | undefined {
  const labels = parseLabelSelector(selectors.labelSelector);
  const fields = parseFieldSelector(selectors.fieldSelector);
  checkFieldSelector(row, fields);
  if (labels.length === 0 && fields.length === 0 && !name) return undefined;
  return (entry) =>
    (!name || entry.key.name === name) &&
    matchesLabels(labels, entry.object.metadata.labels) &&
    matchesFieldSelector(row, objectOf(row, entry), fields);
}
