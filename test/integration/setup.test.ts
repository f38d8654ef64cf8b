import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import type { ChildProcess } from 'node:child_process';
import { execute, start } from '../../src/base/exec.ts';
import type { ExecResult } from '../../src/base/exec.ts';

/**
 * What keeps set-up from going on: each is told in one sentence that says what to do. The programs
 * that set-up calls are replaced, so nothing is installed.
 */
const LAUNCHER = join(import.meta.dirname, '../../hypernetes');
const POLICY = '/usr/sbin/policy-rc.d';

/** A machine on which no package is installed, and what apt-get says there. */
const bare = (aptGet: string) => ({ 'dpkg-query': 'exit 1', 'apt-get': aptGet });

let directory = '';
let number = 0;
before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'hn-setup-'));
});
after(() => rm(directory, { recursive: true, force: true }));

interface Launch {
  child: ChildProcess;
  dataDir: string;
  /** Resolves when it has printed this to stderr. */
  said(words: RegExp): Promise<void>;
  ended: Promise<Pick<ExecResult, 'exitCode' | 'stderr'>>;
}

async function launch(programs: Record<string, string>, dataDir?: string): Promise<Launch> {
  const place = join(directory, String(number++));
  const data = dataDir ?? join(place, 'data');
  await mkdir(join(place, 'bin'), { recursive: true });
  for (const [name, script] of Object.entries(programs)) {
    await writeFile(join(place, 'bin', name), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  }
  const env = { ...process.env, PATH: `${join(place, 'bin')}:${process.env['PATH']}` };
  const child = start(LAUNCHER, ['--data-dir', data, 'status'], {
    env,
    stdio: ['ignore', 1, 'pipe'],
  });
  let stderr = '';
  child.stderr?.on('data', (chunk: Buffer) => {
    stderr += chunk.toString();
    child.emit('words');
  });
  const ended = once(child, 'close').then(([code]) => ({ exitCode: code as number, stderr }));
  return {
    child,
    dataDir: data,
    async said(words) {
      while (!words.test(stderr)) {
        const more = await Promise.race([once(child, 'words'), ended]);
        if ('exitCode' in more) assert.match(stderr, words);
      }
    },
    ended,
  };
}

async function refusal(programs: Record<string, string>, dataDir?: string): Promise<string> {
  const { ended } = await launch(programs, dataDir);
  const { exitCode, stderr } = await ended;
  assert.equal(exitCode, 1, stderr);
  return stderr.trimEnd().split('\n').at(-1) ?? '';
}

test('a machine that is not meant is told which one is', async () => {
  const arm = 'case $1 in -m) echo aarch64 ;; *) echo Linux ;; esac';
  assert.equal(
    await refusal({ uname: arm }),
    'hypernetes: this machine is aarch64: only x86_64 is supported so far.',
  );
  assert.match(
    await refusal({ uname: 'echo Darwin' }),
    /this is Darwin: .* Use a Debian 12 machine/,
  );
});

test('hyperctl is set up by the same launcher, under its own name', async () => {
  const hyperctl = join(import.meta.dirname, '../../hyperctl');
  const place = join(directory, 'hyperctl');
  await mkdir(place);
  await writeFile(join(place, 'uname'), '#!/bin/sh\necho Darwin\n', { mode: 0o755 });
  const env = { ...process.env, PATH: `${place}:${process.env['PATH']}` };
  const words = ['--data-dir', join(place, 'data'), 'run', 'image', '--data-dir', '/proc/none'];
  const { exitCode, stderr } = await execute(hyperctl, words, { env });
  assert.equal(exitCode, 1);
  assert.match(stderr, /^hyperctl: this is Darwin/, 'what follows its command is not its own');
});

test('a data directory that cannot be made is named with the reason', async () => {
  assert.equal(
    await refusal({}, '/proc/none/data'),
    'hypernetes: cannot make the data directory /proc/none/data: No such file or directory. ' +
      'Choose another with --data-dir.',
  );
});

test('what stops apt-get is told with what to do', async () => {
  const cases: [says: string, help: RegExp][] = [
    [
      'Temporary failure resolving packages.example.org',
      /Is the network up, and do the package sources/,
    ],
    [
      'E: dpkg was interrupted, you must manually run',
      /run "dpkg --configure -a", then this again/,
    ],
    ['cannot write: No space left on device', /The disk is full: make room, then run this again/],
    ['E: Could not get lock /var/lib/dpkg/lock', /Another program installs packages: wait for it/],
  ];
  const hadPolicy = existsSync(POLICY);
  for (const [says, help] of cases) {
    const line = await refusal(bare(`echo "${says}"; exit 100`));
    assert.match(line, /^hypernetes: set-up failed at step 1: apt-get \(the whole log: .*\)\. /);
    assert.match(line, help);
  }
  assert.equal(existsSync(POLICY), hadPolicy);
});

test('a second set-up waits for the first, and says so', async () => {
  const dataDir = join(directory, 'shared');
  await mkdir(join(dataDir, 'setup'), { recursive: true });
  const hold = `exec 9>>${join(dataDir, 'setup/lock')}; flock 9; echo held; exec sleep 60`;
  const first = start('sh', ['-c', hold], { stdio: ['ignore', 'pipe', 'inherit'] });
  await once(first.stdout ?? first, 'data');
  const second = await launch(bare('exit 100'), dataDir);
  await second.said(/another set-up of .*shared is under way, waiting for it/);
  first.kill('SIGKILL');
  assert.match((await second.ended).stderr, /set-up failed at step 1/);
});

/** apt's locks are of the kind that only fcntl makes; perl is part of every Debian. */
const HOLD =
  'use Fcntl; open(F, "+<", $ARGV[0]) or die; ' +
  '$lock = pack("ssx4qqlx4", F_WRLCK, 0, 0, 0, 0); ' +
  'fcntl(F, F_SETLK, $lock) or die; $| = 1; print "held\\n"; sleep 60';

test('who holds the lock of apt is named, and waited for', async () => {
  const lock = '/var/lib/dpkg/lock-frontend';
  const holder = start('perl', ['-e', HOLD, lock], { stdio: ['ignore', 'pipe', 'inherit'] });
  await once(holder.stdout ?? holder, 'data');
  const waiting = await launch(bare('exit 100'));
  await waiting.said(new RegExp(`waiting for perl \\(process ${holder.pid}\\), which installs`));
  holder.kill('SIGKILL');
  assert.match((await waiting.ended).stderr, /set-up failed at step 1/);
});

test('an interrupted set-up leaves the machine as it was', async () => {
  const hadPolicy = existsSync(POLICY);
  // As if the terminal were closed while packages are installed.
  const { ended } = await launch(bare('kill -HUP $PPID; exit 0'));
  const { exitCode } = await ended;
  assert.equal(exitCode, 130);
  assert.equal(existsSync(POLICY), hadPolicy);
});
