import { quantityMillis } from '../api/quantity.ts';

/** A quantity as a number that is exact enough for sizing; undefined where there is none. */
export function amountOf(text: string | number | undefined): number | undefined {
  return text === undefined || text === '' ? undefined : quantityMillis(text) / 1000;
}
