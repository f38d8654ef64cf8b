import type { KubeObject } from '../../../api/object.ts';
import type { Strategy } from '../strategy.ts';

export const secretStrategy: Strategy = {
  prepareCreate: foldStringData,
  prepareUpdate: foldStringData,
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
