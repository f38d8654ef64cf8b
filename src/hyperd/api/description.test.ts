import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { chmod, mkdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { test } from 'node:test';
import { createCa, createCaSigner, createKey } from '../../auth/pki.ts';
import { systemClock } from '../../base/clock.ts';
import { silentLog } from '../../base/log.ts';
import { systemRandom } from '../../base/random.ts';
import { createHyperdClient } from '../../client/hyperd.ts';
import type { HyperdClient } from '../../client/hyperd.ts';
import type { TransferProgress } from '../../api/hyperd.ts';
import { IMAGE_ID, containerSpec, createRig, podSpec } from '../daemon/testing/rig.ts';
import { describeApi } from './openapi.ts';
import { ROUTES } from './routes.ts';
import { serveHyperd } from './server.ts';
import { TYPES } from './types.ts';

/** The API as it is described, its doors, and its client. */

const document = describeApi(ROUTES, '1') as {
  paths: Record<string, Record<string, { operationId: string; parameters: { name: string }[] }>>;
  components: { schemas: Record<string, { properties?: object; required?: string[] }> };
};

test('the description has every route, each with an id of its own', () => {
  const operations = Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, { operationId }]) => ({ path, method, operationId })),
  );
  assert.deepEqual(
    operations.map(({ path, method }) => `${method.toUpperCase()} ${path}`).sort(),
    ROUTES.map(({ method, path }) => `${method} ${path}`).sort(),
  );
  assert.equal(new Set(operations.map(({ operationId }) => operationId)).size, ROUTES.length);
});

test('every type that the description refers to is described, and is one of the API', () => {
  const references = JSON.stringify(document).matchAll(/"#\/components\/schemas\/(\w+)"/g);
  const named = new Set([...references].map((match) => match[1] ?? ''));
  assert.deepEqual(
    [...named].filter((name) => !(name in TYPES)),
    [],
  );
  assert.deepEqual(
    Object.keys(TYPES).filter((name) => !named.has(name)),
    [],
    'used by nothing',
  );
  const source = ['hyperd.ts', 'status.ts']
    .map((file) => readFileSync(join(import.meta.dirname, '../../api', file), 'utf8'))
    .join();
  for (const name of Object.keys(TYPES)) {
    assert.match(source, new RegExp(`^export (interface|type) ${name}\\b`, 'm'));
  }
});

test('the description of what is sent has the limits that are checked', () => {
  const { HyperPodSpec, CreatePod } = document.components.schemas;
  const properties = HyperPodSpec?.properties as Record<string, object>;
  assert.deepEqual(properties['cpuCount'], { type: 'integer', minimum: 1, maximum: 64 });
  assert.ok(!HyperPodSpec?.required?.includes('ports') && HyperPodSpec?.required?.includes('dns'));
  assert.deepEqual(CreatePod?.required, ['spec', 'containers', 'start']);
});

interface Doors {
  unix: HyperdClient;
  tls: (subject: 'ours' | 'stranger' | 'none') => HyperdClient;
  directory: string;
  [Symbol.asyncDispose](): Promise<void>;
}

async function openDoors(): Promise<Doors> {
  const rig = await createRig();
  const common = { clock: systemClock, random: systemRandom };
  const authority = () => {
    const caKey = createKey();
    const caCert = createCa(caKey, common);
    return { caCert, signer: createCaSigner({ caCert, caKey, ...common }) };
  };
  const [ours, other] = [authority(), authority()];
  const pair = ours.signer.serverPair('hyperd', ['127.0.0.1']);
  const socketPath = join(rig.directory, 'hyperd.sock');
  const door = { host: '127.0.0.1', port: 0, ...pair, clientCa: ours.caCert };
  const daemon = await rig.start();
  const server = await serveHyperd({ daemon, socketPath, tls: door, log: silentLog, ...common });
  const pairs = {
    ours: ours.signer.clientPair('operator'),
    stranger: other.signer.clientPair('operator'),
    none: { cert: '', key: '' },
  };
  const clients: HyperdClient[] = [];
  const client = (address: Parameters<typeof createHyperdClient>[0]) => {
    const made = createHyperdClient(address);
    clients.push(made);
    return made;
  };
  return {
    directory: rig.directory,
    unix: client(socketPath),
    tls: (subject) => {
      const { host } = door;
      return client({ host, port: server.port ?? 0, ca: ours.caCert, ...pairs[subject] });
    },
    async [Symbol.asyncDispose]() {
      for (const each of clients) each.close();
      await server.close();
      await rig[Symbol.asyncDispose]();
    },
  };
}

test("the socket is its owner's alone, and is not put where others may write", async () => {
  await using doors = await openDoors();
  const { mode } = await stat(join(doors.directory, 'hyperd.sock'));
  assert.equal(mode & 0o777, 0o600);
  const shared = join(doors.directory, 'shared');
  await mkdir(shared);
  await chmod(shared, 0o777);
  await using rig = await createRig();
  const options = { daemon: await rig.start(), clock: systemClock, log: silentLog };
  await assert.rejects(
    serveHyperd({ ...options, socketPath: join(shared, 'hyperd.sock') }),
    /Cannot serve on ".*": of its directory, others may write there/,
  );
});

test('by TLS comes in who has a certificate of the CA, and nobody else', async () => {
  await using doors = await openDoors();
  const ours = doors.tls('ours');
  await ours.ping();
  assert.equal((await ours.info()).version, 'test');
  const spec = { ...podSpec('a'), network: null };
  await ours.createNewPod({ spec, containers: [], start: true });
  assert.equal((await doors.unix.pod('a')).id, 'a', 'it is the same hyperd');
  for (const subject of ['stranger', 'none'] as const) {
    await assert.rejects(doors.tls(subject).info(), /Cannot reach hyperd/);
  }
});

test('what is sent is refused with the field and its limit', async () => {
  await using doors = await openDoors();
  const { unix } = doors;
  const create = (spec: object, containers: object[] = []) =>
    unix.createNewPod({ spec: podSpec('a', spec), containers: containers as never, start: false });
  const mapping = { hostAddress: '0.0.0.0', hostPort: 80, guestPort: 80 };
  const ports = (change: object) => create({ ports: [{ ...mapping, ...change }] });
  const refusals: [() => Promise<unknown>, RegExp][] = [
    [
      () => ports({ guestPort: 0 }),
      /ports item 0 guestPort must be a whole number from 1 to 65535, is 0/,
    ],
    [() => ports({ hostAddress: 'localhost' }), /hostAddress must be an IP address/],
    [() => create({ whenDone: 'never' }), /whenDone must be one of keep, stop, remove/],
    [() => create({}, [{ id: 'A' }]), /containers: .*item 0 id must match/],
    [() => create({}, [containerSpec('a'), containerSpec('a')]), /two have the id "a"/],
    [
      () => unix.pullImage({ reference: 'x', credentials: [], policy: 'maybe' as never }),
      /policy: Invalid value: must be one/,
    ],
    [() => push(unix), /reference: Invalid value: must be a string/],
    [() => unix.stopPod('a', undefined, 1e9), /"graceMs" must be at most 86400000/],
    [() => unix.limitPool('o', -1), /memoryMib: Invalid value: must be a whole number from 0/],
    [() => unix.removeTemplate('t'), /templates "t" not found/],
  ];
  for (const [call, message] of refusals) await assert.rejects(call(), message);
});

async function push(client: HyperdClient): Promise<void> {
  const progress = client.pushProgress({ credentials: [] } as never, AbortSignal.timeout(5_000));
  for await (const _ of progress);
}

test('a query parameter is refused by name', async () => {
  await using doors = await openDoors();
  const { unix } = doors;
  const query = { follow: false, sinceMs: 0, tailLines: 'x' as never };
  const logs = unix.logs('a', 'b', query, AbortSignal.timeout(5_000));
  await assert.rejects(async () => {
    for await (const _ of logs);
  }, /"tailLines" must be a whole number, is "x"/);
});

test('images come and go, with how far they are', async () => {
  await using doors = await openDoors();
  const { unix } = doors;
  const signal = AbortSignal.timeout(5_000);
  const told: TransferProgress[] = [];
  const pull = { reference: 'localhost/test:1', credentials: [], policy: 'always' as const };
  for await (const each of unix.pullProgress(pull, signal)) told.push(each);
  assert.deepEqual(
    told.map(({ type }) => type),
    ['done'],
  );
  const missing: TransferProgress[] = [];
  const other = { ...pull, reference: 'localhost/none:1' };
  for await (const each of unix.pullProgress(other, signal)) missing.push(each);
  const last = missing.at(-1);
  assert.ok(last?.type === 'failed' && last.status.code === 404);
  const archive = Readable.from([Buffer.alloc(1 << 20)]);
  assert.equal((await unix.loadImages(archive, ['a:1'], signal))[0]?.id, IMAGE_ID);
  const parts: Buffer[] = [];
  for await (const part of await unix.saveImages([IMAGE_ID], signal)) parts.push(part as Buffer);
  assert.equal(Buffer.concat(parts).toString(), IMAGE_ID);
  await assert.rejects(unix.saveImages(['none'], signal), /not found/);
  await unix.removeImage(IMAGE_ID);
  assert.deepEqual(await unix.images(), []);
});
