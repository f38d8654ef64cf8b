import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import {
  bridgeCommands,
  hostRules,
  linkAddresses,
  linkCommands,
  namesOf,
  networkRules,
  portCommands,
  portElement,
  uplinkCommands,
} from './commands.ts';

const NAMES = namesOf('/var/lib/hypernetes/hyperd/network');
const NETWORK = { id: 'default', cidr: '10.88.0.0/24', gateway: '10.88.0.1', mtu: 1500, nat: true };
const PORT = {
  id: '0a1b2c3d-0000-4000-8000-000000000001',
  networkId: 'default',
  address: '10.88.0.2',
  mac: '02:11:22:33:44:55',
  ownerUid: 70_001,
};
const GOLDEN = join(import.meta.dirname, 'commands.golden.txt');

test('the commands and rules of a network are those of the golden file', async () => {
  const parts: [string, string[] | string][] = [
    ['ip, in the network, nothing there', bridgeCommands(NETWORK, 1500, new Set())],
    ['ip, in the network, bridge there', bridgeCommands(NETWORK, 1500, new Set(['br0']))],
    ['ip, on the host', linkCommands(NAMES, 'default', 3, 1500, false)],
    ['ip, in the network, uplink', uplinkCommands(3, 1500)],
    ['ip, in the network, port', portCommands(PORT, 1500, false)],
    ['nft, in the network, port goes', portElement(NAMES, PORT, 'delete')],
    ['nft, in the network', networkRules(NAMES, NETWORK, [PORT])],
    ['nft, in a network without NAT', networkRules(NAMES, { ...NETWORK, nat: false }, [])],
    ['nft, on the host', hostRules(NAMES, [{ address: '192.0.2.2', port: 6443 }], ['eth0'])],
  ];
  const text = parts
    .map(
      ([title, body]) => `# ${title}\n${typeof body === 'string' ? body : `${body.join('\n')}\n`}`,
    )
    .join('\n');
  if (process.env.UPDATE_GOLDEN === '1') await writeFile(GOLDEN, text);
  assert.equal(text, await readFile(GOLDEN, 'utf8'));
});

test('links have distinct addresses, clear of those of cloud metadata', () => {
  assert.deepEqual(linkAddresses(0), { host: '169.254.64.1', network: '169.254.64.2' });
  assert.deepEqual(linkAddresses(4095), { host: '169.254.127.253', network: '169.254.127.254' });
});

test('two daemons share no name', () => {
  assert.notDeepEqual(namesOf('/a'), namesOf('/b'));
});
