import type { KubeObject } from '../../api/object.ts';
import type { ResourceRow } from '../../api/schema/schema.ts';
import type { StatusCause } from '../../api/status.ts';

export { applyDefaults } from '../../api/schema/defaults.ts';
export { printCells } from '../../api/schema/printer.ts';
export { applyPatch } from '../../api/schema/patch/patch.ts';

export function validateObject(
  _row: ResourceRow,
  _object: KubeObject,
  _old: KubeObject | undefined,
): StatusCause[] {
  return [];
}
