import { isTooDeep, JSON_DEPTH_MAX } from '../../json.ts';
import type { KubeObject } from '../../object.ts';
import { badRequest, StatusError } from '../../status.ts';
import type { ResourceRow, SchemaTable } from '../schema.ts';
import { applyJsonPatch } from './json-patch.ts';
import { applyMergePatch } from './merge-patch.ts';
import { applyStrategicMergePatch } from './strategic.ts';

export const PATCH_TYPES = {
  json: 'application/json-patch+json',
  merge: 'application/merge-patch+json',
  strategic: 'application/strategic-merge-patch+json',
} as const;

/** Patch media types a resource takes, for `Accept-Patch` and error messages. */
export function acceptedPatchTypes(table: SchemaTable, row: ResourceRow): string[] {
  const strategic = table.type(row.type)?.message !== undefined || row.group === '';
  return strategic ? Object.values(PATCH_TYPES) : [PATCH_TYPES.json, PATCH_TYPES.merge];
}

/**
 * Applies a decoded patch body of the given media type to an object. The result is as free of
 * checks as a new body: structure, defaults and validation come after it. Throws 400, 413 and 422
 * as the kinds of patch do, and 415 for another media type.
 */
export function applyPatch(
  table: SchemaTable,
  row: { type: string },
  object: KubeObject,
  mediaType: string,
  patch: unknown,
): Record<string, unknown> {
  const result = patched(table, row.type, object, mediaType, patch);
  if (typeof result !== 'object' || result === null || Array.isArray(result)) {
    throw badRequest('the patched value is not an object');
  }
  // Patches build on each other: together they could go deeper than any one body.
  if (isTooDeep(result)) throw badRequest(`nesting exceeds ${JSON_DEPTH_MAX} levels`);
  return result as Record<string, unknown>;
}

function patched(
  table: SchemaTable,
  typeName: string,
  object: KubeObject,
  mediaType: string,
  patch: unknown,
): unknown {
  switch (mediaType) {
    case PATCH_TYPES.json:
      return applyJsonPatch(object, patch);
    case PATCH_TYPES.merge:
      if (typeof patch !== 'object' || patch === null || Array.isArray(patch)) {
        throw badRequest('error decoding patch: a merge patch is an object');
      }
      return applyMergePatch(object, patch);
    case PATCH_TYPES.strategic:
      return applyStrategicMergePatch(table, typeName, object, patch);
    default: {
      const accepted = Object.values(PATCH_TYPES).join(', ');
      const message = `the body of the request was in an unknown format - accepted media types include: ${accepted}`;
      throw new StatusError('UnsupportedMediaType', message);
    }
  }
}
