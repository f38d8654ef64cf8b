import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { seededRandom } from '../base/random.ts';
import { OrderedMap } from './ordered.ts';

describe('OrderedMap', () => {
  it('behaves as a sorted array under random operations', () => {
    const seed = Math.floor(Math.random() * 2 ** 31);
    const random = seededRandom(seed);
    let map = new OrderedMap<number>();
    const model = new Map<string, number>();
    const sort = (): [string, number][] => [...model].sort(([a], [b]) => (a < b ? -1 : 1));
    const copies: { map: OrderedMap<number>; content: [string, number][] }[] = [];
    const keyOf = (index: number) => `k${String(index).padStart(5, '0')}`;
    for (let step = 0; step < 30_000; step += 1) {
      const key = keyOf(Math.floor(random.next() * 4000));
      const growing = Math.floor(step / 6000) % 2 === 0;
      if (random.next() < (growing ? 0.8 : 0.2)) {
        assert.equal(map.set(key, step), model.get(key), `seed ${seed}`);
        model.set(key, step);
      } else {
        assert.equal(map.delete(key), model.get(key), `seed ${seed}`);
        model.delete(key);
      }
      if (step % 1000 !== 999) continue;
      const sorted = sort();
      assert.deepEqual([...map.range('')], sorted, `seed ${seed}`);
      assert.equal(map.size, sorted.length);
      const [from, to] = [keyOf(Math.floor(random.next() * 4000)), keyOf(3000)];
      const expected = sorted.filter(([each]) => each >= from && each < to);
      assert.deepEqual([...map.range(from, to)], expected, `seed ${seed}`);
      assert.equal(map.rank(from), sorted.filter(([each]) => each < from).length);
      assert.equal(map.get(from), model.get(from));
      // Go on with the copy or with the original; the other one must not notice.
      const copy = map.copy();
      const swap = random.next() < 0.5;
      copies.push({ map: swap ? map : copy, content: sorted });
      if (swap) map = copy;
    }
    for (const copy of copies) assert.deepEqual([...copy.map.range('')], copy.content);
  });

  it('answers for an empty map and beyond its ends', () => {
    const map = new OrderedMap<number>();
    assert.equal(map.get('a'), undefined);
    assert.equal(map.rank('a'), 0);
    assert.deepEqual([...map.range('')], []);
    map.set('b', 1);
    assert.equal(map.rank('z'), 1);
    assert.equal(map.get('z'), undefined);
    assert.deepEqual([...map.range('c')], []);
    map.set('z', 2);
    assert.deepEqual([...map.range('a', 'z')], [['b', 1]]);
  });
});
