import assert from 'node:assert/strict';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { systemClock } from '../../src/base/clock.ts';
import { execute, run } from '../../src/base/exec.ts';
import { silentLog } from '../../src/base/log.ts';
import { openImageStore, parseRegistriesConfig } from '../../src/hyperd/image/index.ts';
import type { NodeImageStore } from '../../src/hyperd/image/index.ts';
import { pushImage } from '../../src/hyperd/registry/build.ts';
import type { BuiltImage, PushOptions } from '../../src/hyperd/registry/build.ts';
import { createRegistry } from '../../src/hyperd/registry/index.ts';
import { buildNginxImage } from './fixtures/nginx-image.ts';
import { packagedProgram } from './support/debian.ts';
import type { PackagedProgram } from './support/debian.ts';
import { startDockerRegistry } from './support/docker-registry.ts';

/**
 * Our registry and our client against others: the same image goes through Debian's
 * docker-registry (plain, and with TLS and a password) and through the embedded registry, is
 * pushed and pulled by ours and by skopeo, and unpacked by ours and by umoci.
 */
interface Door {
  name: string;
  host: string;
  push: PushOptions;
  /** For `configs` of registries.yaml. */
  config: Record<string, unknown>;
  scheme: 'http' | 'https';
  /** Options of skopeo, with `src` or `dest` for the side. */
  skopeo(side: 'src' | 'dest'): string[];
  close(): Promise<void>;
}

let directory = '';
let image: BuiltImage;
let skopeo: PackagedProgram;
let umoci: PackagedProgram;
const doors: Door[] = [];

before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'registry-e2e-'));
  image = await buildNginxImage();
  const libraries = ['libgpgme11', 'libassuan0', 'libgpg-error0', 'libdevmapper1.02.1'];
  skopeo = await packagedProgram('skopeo', libraries);
  umoci = await packagedProgram('umoci');
  doors.push(await embedded(), await dockerPlain(), await dockerSecure());
});
after(async () => {
  for (const door of doors) await door.close();
  await rm(directory, { recursive: true, force: true });
});

const plainSkopeo = (side: string) => [`--${side}-tls-verify=false`];

async function embedded(): Promise<Door> {
  const registry = await createRegistry({
    directory: join(directory, 'embedded'),
    clock: systemClock,
    log: silentLog,
  });
  const { port } = await registry.listen({ host: '127.0.0.1', port: 0 });
  return {
    name: 'the embedded registry',
    host: `127.0.0.1:${port}`,
    push: {},
    config: {},
    scheme: 'http',
    skopeo: plainSkopeo,
    close: () => registry.close(),
  };
}

async function dockerPlain(): Promise<Door> {
  const server = await startDockerRegistry({ secure: false });
  const close = () => server[Symbol.asyncDispose]();
  const { host } = server;
  return {
    name: 'docker-registry',
    host,
    push: {},
    config: {},
    scheme: 'http',
    skopeo: plainSkopeo,
    close,
  };
}

async function dockerSecure(): Promise<Door> {
  const server = await startDockerRegistry({ secure: true });
  const { host, credential, caCert, caFile } = server;
  assert.ok(credential && caCert && caFile);
  return {
    name: 'docker-registry with TLS and a password',
    host,
    push: {
      plainHttp: false,
      credential,
      tls: { ca: caCert, cert: undefined, key: undefined, insecureSkipVerify: false },
    },
    config: { tls: { ca_file: caFile } },
    scheme: 'https',
    skopeo: (side) => [
      `--${side}-cert-dir=${join(caFile, '..')}`,
      `--${side}-creds=${credential.username}:${credential.password}`,
    ],
    close: () => server[Symbol.asyncDispose](),
  };
}

async function openStore(name: string): Promise<NodeImageStore> {
  const document = {
    mirrors: Object.fromEntries(
      doors.map(({ host, scheme }) => [host, { endpoint: [`${scheme}://${host}`] }]),
    ),
    configs: Object.fromEntries(doors.map(({ host, config }) => [host, config])),
  };
  const registries = await parseRegistriesConfig(document, (file) => readFile(file, 'utf8'));
  return openImageStore({
    directory: join(directory, name),
    registries,
    clock: systemClock,
    log: silentLog,
  });
}

const credentialsOf = (door: Door) => (door.push.credential ? [door.push.credential] : []);
const runSkopeo = (args: string[]) =>
  run(skopeo.path, ['--insecure-policy', ...args], { env: skopeo.env, cwd: directory });

test('an image is pushed and pulled by ours, through every registry', async () => {
  for (const [index, door] of doors.entries()) {
    const store = await openStore(`own-${index}`);
    const reference = `${door.host}/team/nginx:1`;
    try {
      await pushImage(reference, image, door.push);
      const pulled = await store.pull({ reference, credentials: credentialsOf(door) });
      assert.equal(pulled.id, image.id, door.name);
      assert.equal(pulled.digest, image.digest, door.name);
      assert.deepEqual(pulled.config.command, ['/usr/sbin/nginx']);
      const absent = store.pull({
        reference: `${door.host}/team/none:1`,
        credentials: credentialsOf(door),
      });
      await assert.rejects(absent, {
        reason: 'NotFound',
        message: /failed to pull image ".*": .*not found/,
      });
      if (door.push.credential) {
        const wrong = { ...door.push.credential, password: 'wrong' };
        for (const credentials of [[], [wrong]]) {
          await assert.rejects(store.pull({ reference, credentials }), { reason: 'Unauthorized' });
        }
        await assert.rejects(
          pushImage(reference, image, { ...door.push, credential: wrong }),
          /status 401/,
        );
      }
    } finally {
      await store.close();
    }
  }
});

test('skopeo and ours understand each other in both directions', async () => {
  for (const [index, door] of doors.entries()) {
    const ours = `docker://${door.host}/team/nginx:1`;
    const layout = `layout-${index}`;
    await runSkopeo(['copy', '-q', ...door.skopeo('src'), ours, `oci:${layout}:1`]);
    const theirs = `docker://${door.host}/skopeo/nginx:2`;
    await runSkopeo(['copy', '-q', ...door.skopeo('dest'), `oci:${layout}:1`, theirs]);
    // Docker's own format, with other media types and another digest.
    const docker = `docker://${door.host}/skopeo/nginx:docker`;
    await runSkopeo([
      'copy',
      '-q',
      '--format=v2s2',
      ...door.skopeo('dest'),
      `oci:${layout}:1`,
      docker,
    ]);
    const store = await openStore(`skopeo-${index}`);
    try {
      for (const tag of ['2', 'docker']) {
        const reference = `${door.host}/skopeo/nginx:${tag}`;
        const pulled = await store.pull({ reference, credentials: credentialsOf(door) });
        assert.deepEqual(pulled.config.command, ['/usr/sbin/nginx'], `${door.name} ${tag}`);
        assert.deepEqual(pulled.config.exposedPorts, ['80/tcp'], `${door.name} ${tag}`);
      }
      const tags = await runSkopeo([
        'list-tags',
        ...listOptions(door),
        `docker://${door.host}/skopeo/nginx`,
      ]);
      assert.deepEqual((JSON.parse(tags) as { Tags: string[] }).Tags.sort(), ['2', 'docker']);
      await runSkopeo(['delete', ...listOptions(door), docker]);
      const gone = store.pull({
        reference: `${door.host}/skopeo/nginx:docker`,
        credentials: credentialsOf(door),
      });
      await assert.rejects(gone, { reason: 'NotFound' });
    } finally {
      await store.close();
    }
  }
});

function listOptions(door: Door): string[] {
  return door.skopeo('src').map((option) => option.replace('--src-', '--'));
}

test('the disk holds what umoci unpacks, file by file', async () => {
  const [door] = doors as [Door];
  const store = await openStore('umoci');
  try {
    const reference = `${door.host}/team/nginx:1`;
    const { id } = await store.pull({ reference, credentials: [] });
    const disk = await store.acquire(id, 'test');
    const extracted = join(directory, 'extracted');
    await run('fsck.erofs', [`--extract=${extracted}`, '--preserve', disk]);
    const bundle = join(directory, 'bundle');
    const layout = `${join(directory, 'layout-0')}:1`;
    await run(umoci.path, ['unpack', '--image', layout, bundle], { env: umoci.env });
    const rootfs = join(bundle, 'rootfs');
    await run('diff', ['--recursive', '--no-dereference', rootfs, extracted]);
    assert.deepEqual(await describe(extracted), await describe(rootfs));
    assert.ok(!(await readdir(join(extracted, 'etc/nginx'))).includes('sites-enabled'));
    // In a container these are its streams.
    for (const name of ['stdout', 'stderr']) await writeFile(join(extracted, 'dev', name), '');
    const checked = await execute('chroot', [extracted, '/usr/sbin/nginx', '-t']);
    assert.match(checked.stderr, /test is successful/, checked.stderr);
  } finally {
    await store.close();
  }
});

/** Type, mode, owner, time and size of every file. Sizes of directories are the file system's own. */
async function describe(root: string): Promise<string[]> {
  const format = '%P %y %m %U %G %T@ %l';
  const all = await run('find', [root, '-mindepth', '1', '-printf', `${format}\\n`]);
  const sizes = await run('find', [root, '-type', 'f', '-printf', '%P %s\\n']);
  return [...all.split('\n'), ...sizes.split('\n')].sort();
}
