import { isDeepStrictEqual } from 'node:util';
import type { KubeObject } from '../../../api/object.ts';
import type { StatusCause } from '../../../api/status.ts';
import type { Strategy } from '../strategy.ts';

export const configMapStrategy: Strategy = {
  validateUpdate: (object, old) => frozenCauses(object, old, ['data', 'binaryData']),
};

export const secretStrategy: Strategy = {
  immutable: [{ path: 'type' }],
  prepareCreate: foldStringData,
  prepareUpdate: foldStringData,
  validateUpdate: (object, old) => frozenCauses(object, old, ['data']),
};

/** `stringData` is for writing only: its values win, and are kept as `data`. */
function foldStringData(secret: KubeObject): void {
  const { stringData } = secret as { stringData?: Record<string, string> };
  delete secret.stringData;
  if (!stringData) return;
  const data = { ...(secret.data as Record<string, string> | undefined) };
  for (const [key, value] of Object.entries(stringData)) {
    data[key] = Buffer.from(value, 'utf8').toString('base64');
  }
  secret.data = data;
}

/** Once `immutable` is set, nothing but metadata changes any more. */
function frozenCauses(object: KubeObject, old: KubeObject, fields: string[]): StatusCause[] {
  if (old.immutable !== true) return [];
  const causes: StatusCause[] = [];
  const reason = 'FieldValueForbidden';
  if (object.immutable !== true) {
    const message = 'Forbidden: field is immutable when `immutable` is set';
    causes.push({ reason, field: 'immutable', message });
  }
  for (const field of fields) {
    if (isDeepStrictEqual(object[field], old[field])) continue;
    const message = 'Forbidden: field is immutable when `immutable` is set';
    causes.push({ reason, field, message });
  }
  return causes;
}
