import assert from 'node:assert/strict';
import { chmod, mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { test } from 'node:test';
import { buildKernel, planBuild } from './build.ts';
import type { BuildProgress, KernelBuildOptions } from './build.ts';

// Goal: the steps of a build, its key and its errors. Method: programs of the same names that do in
// a few lines what apt and make do with a kernel.

const FRAGMENT = ['CONFIG_PVH=y', '# a comment', 'CONFIG_NR_CPUS=64', ''].join('\n');

const PROGRAMS: Record<string, string> = {
  'apt-cache': `case $1 in
    depends) [ -n "$FAKE_UNKNOWN" ] || echo '  Depends: linux-source-9.9' ;;
    show) echo "Version: \${FAKE_VERSION:-9.9.1-1}" ;;
  esac`,
  'apt-get': `[ -z "$FAKE_OFFLINE" ] || { echo 'E: Could not resolve host' >&2; exit 100; }
  for name; do :; done
  echo package >"$name.deb"`,
  'dpkg-deb': `mkdir -p package/usr/src linux-source-9.9
  echo source >linux-source-9.9/Makefile
  tar -cf package/usr/src/linux-source-9.9.tar.xz linux-source-9.9
  rm -r linux-source-9.9`,
  make: `for word; do
    case $word in
      O=*) out=\${word#O=} ;;
      KCONFIG_ALLCONFIG=*) all=\${word#KCONFIG_ALLCONFIG=} ;;
      allnoconfig) grep -v "\${FAKE_IGNORED:-nothing}" "$all" >"$out/.config" ;;
      vmlinux)
        for i in 1 2 3; do echo "  CC      $i.o"; done
        [ -z "$FAKE_HANG" ] || sleep 60
        [ -z "$FAKE_ERROR" ] || { echo "a.c:1: error: $FAKE_ERROR" >&2; exit 2; }
        echo "$KBUILD_BUILD_USER $KBUILD_BUILD_TIMESTAMP" >"$out/vmlinux" ;;
    esac
  done`,
  strip: 'cp "$4" "$3"',
  gcc: 'echo "gcc 12 ${FAKE_GCC:-}"',
  ...Object.fromEntries(['ld', 'flex', 'bison', 'bc', 'xz'].map((name) => [name, 'exit 1'])),
};

interface Bench extends AsyncDisposable {
  options(env?: Record<string, string>): KernelBuildOptions & { seen: BuildProgress[] };
  work: string;
  fragmentPath: string;
}

async function bench(): Promise<Bench> {
  const root = await mkdtemp(join(tmpdir(), 'hypernetes-build-'));
  const bin = join(root, 'bin');
  await mkdir(bin);
  for (const [name, script] of Object.entries(PROGRAMS)) {
    await writeFile(join(bin, name), `#!/bin/sh\nset -e\n${script}\n`);
    await chmod(join(bin, name), 0o755);
  }
  await writeFile(join(root, 'libelf.h'), '');
  const fragmentPath = join(root, 'fragment');
  await writeFile(fragmentPath, FRAGMENT);
  const work = join(root, 'work');
  return {
    work,
    fragmentPath,
    options(env = {}) {
      const seen: BuildProgress[] = [];
      return {
        fragmentPath,
        workDirectory: work,
        headerDirectory: root,
        jobs: 2,
        signal: new AbortController().signal,
        env: { PATH: [bin, process.env['PATH']].join(delimiter), ...env },
        onProgress: (progress) => void seen.push(progress),
        seen,
      };
    },
    [Symbol.asyncDispose]: () => rm(root, { recursive: true, force: true }),
  };
}

test('buildKernel() goes its steps, says how far it is and leaves nothing behind', async () => {
  await using here = await bench();
  const options = here.options();
  const plan = await planBuild(options);
  assert.deepEqual([plan.sourcePackage, plan.sourceVersion], ['linux-source-9.9', '9.9.1-1']);
  const { vmlinux, config } = await buildKernel(plan, options);
  assert.equal(vmlinux.toString(), 'hypernetes Thu Jan  1 00:00:00 UTC 1970\n');
  assert.match(config, /CONFIG_NR_CPUS=64/);
  assert.deepEqual([...new Set(options.seen.map(({ step }) => step))], [1, 2, 3, 4, 5]);
  const compiling = options.seen.filter(({ step }) => step === 4).map(({ fraction }) => fraction);
  assert.equal(compiling.length, 4, 'one for each line');
  assert.ok(compiling.every((each, i) => i === 0 || (each ?? 0) > (compiling[i - 1] ?? 1)));
  await assert.rejects(readdir(here.work), /ENOENT/);
});

test('the key tells kernels apart by source, configuration and compiler, and by nothing else', async () => {
  await using here = await bench();
  const key = async (env?: Record<string, string>) => (await planBuild(here.options(env))).key;
  const first = await key();
  assert.notEqual(await key({ FAKE_VERSION: '9.9.2-1' }), first);
  assert.notEqual(await key({ FAKE_GCC: '13' }), first);
  await writeFile(here.fragmentPath, `# other words\n${FRAGMENT}`);
  assert.equal(await key(), first);
  await writeFile(here.fragmentPath, `${FRAGMENT}CONFIG_MORE=y\n`);
  assert.notEqual(await key(), first);
});

const failures: [what: string, env: Record<string, string>, message: RegExp][] = [
  [
    'the network is down',
    { FAKE_OFFLINE: '1' },
    /^Error: Cannot fetch linux-source-9.9: .*Could not resolve host.* Is the network up/,
  ],
  [
    'the source does not know an option',
    { FAKE_IGNORED: 'NR_CPUS' },
    /this source does not take CONFIG_NR_CPUS=64 of /,
  ],
  ['it does not compile', { FAKE_ERROR: 'no' }, /Cannot compile the kernel:\na.c:1: error: no$/],
  [
    'the disk is full',
    { FAKE_ERROR: 'No space left on device' },
    /the disk is full \(\d+ MiB are free\)\. 3072 MiB are needed/,
  ],
];
for (const [what, env, message] of failures) {
  test(`buildKernel() says that ${what}`, async () => {
    await using here = await bench();
    const options = here.options(env);
    const plan = await planBuild(options);
    await assert.rejects(buildKernel(plan, options), message);
    await assert.rejects(readdir(here.work), /ENOENT/);
  });
}

test('planBuild() names the packages of tools that are missing', async () => {
  await using here = await bench();
  const options = here.options();
  await assert.rejects(
    planBuild({ ...options, env: { PATH: here.work }, systemDirectories: [] }),
    /tools are missing\. Install them with "apt-get install bc binutils bison .*xz-utils"/,
  );
  await assert.rejects(
    planBuild({ ...options, headerDirectory: here.work }),
    /apt-get install libelf-dev"/,
  );
});

test('planBuild() says that apt knows no source', async () => {
  await using here = await bench();
  await assert.rejects(
    planBuild(here.options({ FAKE_UNKNOWN: '1' })),
    /apt does not know the package linux-source\. Run "apt-get update"/,
  );
});

test('buildKernel() ends all of its programs when it is broken off', async () => {
  await using here = await bench();
  const ending = new AbortController();
  const options = here.options({ FAKE_HANG: '1' });
  const plan = await planBuild(options);
  const startMs = performance.now();
  const building = buildKernel(plan, {
    ...options,
    signal: ending.signal,
    onProgress: ({ step, fraction }) => {
      if (step === 4 && (fraction ?? 0) > 0) ending.abort(new Error('enough'));
    },
  });
  await assert.rejects(building, /^Error: enough$/);
  assert.ok(performance.now() - startMs < 30_000);
  await assert.rejects(readdir(here.work), /ENOENT/);
});
