import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { NetworkDriver, NetworkSpec } from './driver.ts';

export interface NetworkUnderTest {
  driver: NetworkDriver;
  /** The same state seen by a daemon that was started again; undefined where none survives. */
  restart?: () => Promise<NetworkDriver>;
  /** Called after each test, whatever came of it. */
  dispose: () => Promise<void>;
}

const BLUE: NetworkSpec = {
  id: 'blue',
  cidr: '10.88.0.0/28',
  gateway: '10.88.0.1',
  mtu: 1400,
  nat: true,
};
const OWNER = 70_001;

/** What every network driver promises. `make` is called once for each test. */
export function networkConformance(name: string, make: () => Promise<NetworkUnderTest>): void {
  const check = (what: string, body: (under: NetworkUnderTest) => Promise<void>) => {
    test(`${name}: ${what}`, async () => {
      const under = await make();
      try {
        await body(under);
      } finally {
        for (const port of (await under.driver.list()).ports)
          await under.driver.deletePort(port.id);
        for (const network of (await under.driver.list()).networks) {
          await under.driver.deleteNetwork(network.id);
        }
        await under.dispose();
      }
    });
  };
  const refuses = (reason: string) => ({ name: 'NetworkError', reason });
  const port = (id: string, networkId = 'blue') => ({ id, networkId, ownerUid: OWNER });

  check('ensurePort() gives distinct addresses inside the range', async ({ driver }) => {
    await driver.ensureNetwork(BLUE);
    const ports = await Promise.all(['a', 'b', 'c'].map((id) => driver.ensurePort(port(id))));
    assert.equal(new Set(ports.map((p) => p.address)).size, 3);
    assert.equal(new Set(ports.map((p) => p.mac)).size, 3);
    for (const p of ports) {
      assert.match(p.address, /^10\.88\.0\.([2-9]|1[0-4])\/28$/);
      assert.match(p.mac, /^02(:[0-9a-f]{2}){5}$/);
      assert.equal(p.gateway, '10.88.0.1');
      assert.equal(p.mtu, 1400);
    }
  });

  check('ensurePort() asked again returns the same port', async ({ driver }) => {
    await driver.ensureNetwork(BLUE);
    const first = await driver.ensurePort(port('a'));
    assert.deepEqual(await driver.ensurePort(port('a')), first);
    assert.deepEqual((await driver.list()).ports, [first]);
  });

  check('ensurePort() does not hand out a freed address at once', async ({ driver }) => {
    await driver.ensureNetwork(BLUE);
    const first = await driver.ensurePort(port('a'));
    await driver.deletePort('a');
    assert.notEqual((await driver.ensurePort(port('b'))).address, first.address);
  });

  check(
    'ensurePort() says when the range is used up, and goes on when one is freed',
    async ({ driver }) => {
      await driver.ensureNetwork({ ...BLUE, cidr: '10.88.0.0/29' });
      const ids = ['a', 'b', 'c', 'd', 'e'];
      for (const id of ids) await driver.ensurePort(port(id));
      await assert.rejects(driver.ensurePort(port('f')), refuses('Exhausted'));
      await driver.deletePort('c');
      await driver.ensurePort(port('f'));
    },
  );

  check('ensurePort() gives the address that is asked for, once', async ({ driver }) => {
    await driver.ensureNetwork(BLUE);
    const fixed = await driver.ensurePort({ ...port('a'), address: '10.88.0.9' });
    assert.equal(fixed.address, '10.88.0.9/28');
    await assert.rejects(
      driver.ensurePort({ ...port('b'), address: '10.88.0.9' }),
      refuses('InUse'),
    );
    await assert.rejects(
      driver.ensurePort({ ...port('b'), address: '10.88.0.1' }),
      refuses('InUse'),
    );
    await assert.rejects(
      driver.ensurePort({ ...port('b'), address: '10.99.0.9' }),
      refuses('Invalid'),
    );
    await assert.rejects(driver.ensurePort({ ...port('b'), address: 'nine' }), refuses('Invalid'));
  });

  check('ensurePort() refuses a network that nobody ensured', async ({ driver }) => {
    await assert.rejects(driver.ensurePort(port('a', 'red')), refuses('NotFound'));
  });

  check('two networks may use the same range', async ({ driver }) => {
    await driver.ensureNetwork(BLUE);
    await driver.ensureNetwork({ ...BLUE, id: 'red' });
    const [a, b] = [await driver.ensurePort(port('a')), await driver.ensurePort(port('b', 'red'))];
    assert.equal(a.address, b.address);
    assert.notEqual(a.netns, b.netns);
  });

  check('ensureNetwork() refuses what makes no sense', async ({ driver }) => {
    const bad: Partial<NetworkSpec>[] = [
      { id: '' },
      { id: 'Blue; reboot' },
      { cidr: '10.88.0.0' },
      { cidr: '10.88.0.1/28' },
      { cidr: '10.88.0.0/31' },
      { gateway: '10.88.0.0' },
      { gateway: '10.88.0.15' },
      { gateway: '10.89.0.1' },
      { mtu: 12 },
    ];
    for (const change of bad) {
      const wrong = driver.ensureNetwork({ ...BLUE, ...change });
      await assert.rejects(wrong, refuses('Invalid'), JSON.stringify(change));
    }
    assert.deepEqual(await driver.list(), { networks: [], ports: [] });
  });

  check('deleteNetwork() refuses while there are ports', async ({ driver }) => {
    await driver.ensureNetwork(BLUE);
    await driver.ensurePort(port('a'));
    await assert.rejects(driver.deleteNetwork('blue'), refuses('InUse'));
    const moved = driver.ensureNetwork({ ...BLUE, gateway: '10.88.0.2' });
    await assert.rejects(moved, refuses('InUse'));
    await driver.deletePort('a');
    await driver.deleteNetwork('blue');
    assert.deepEqual(await driver.list(), { networks: [], ports: [] });
  });

  check('deleting what is not there is fine', async ({ driver }) => {
    await driver.deletePort('nobody');
    await driver.deleteNetwork('nothing');
  });

  check('a restarted driver knows what there is', async ({ driver, restart }) => {
    if (restart === undefined) return;
    await driver.ensureNetwork(BLUE);
    const a = await driver.ensurePort(port('a'));
    const again = await restart();
    assert.deepEqual(await again.list(), { networks: [BLUE], ports: [a] });
    await again.ensureNetwork(BLUE);
    assert.deepEqual(await again.ensurePort(port('a')), a);
    await again.deletePort('a');
    await again.deleteNetwork('blue');
    await driver.deletePort('a');
    await driver.deleteNetwork('blue');
  });
}
