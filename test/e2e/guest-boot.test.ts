import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { env } from 'node:process';
import { after, before, describe, test } from 'node:test';
import type { ProcessSpec } from '../../src/api/hyperd.ts';
import { systemClock } from '../../src/base/clock.ts';
import { seededRandom } from '../../src/base/random.ts';
import type { Agent, GuestContainerSpec, PodSetup } from '../../src/hyperd/agent/agent.ts';
import { AgentError } from '../../src/hyperd/agent/agent.ts';
import { connectAgent } from '../../src/hyperd/agent/client.ts';
import { containerSpec, makeTestHost } from '../../src/hyperd/agent/testing/guest.ts';
import { processSpec, textOf } from '../../src/hyperd/agent/testing/guest.ts';
import { GUEST_MAC, startGuestVm, testAssets } from './guest-vm.ts';
import type { GuestVm } from './guest-vm.ts';

// Goal: kernel, initramfs and hyperstart do in a real VM what agent.ts promises. Method: one VM
// under QEMU without hyperd; containers of busybox on real block devices.

/** Far above what it takes (SPECIFICATION.md): other tests may run at the same time. */
const BOOT_MS_MAX = 30_000;
const SEED = Number(env['HYPERNETES_TEST_SEED'] ?? Date.now() % 2 ** 32);
/** The device tells of hosts that go by another queue than their bytes: one in 60 was unlucky. */
const TAKEOVERS = 200;
const TAKEOVER_PAUSE_MS = 30;
const DOCKER_DEFAULT = ['CHOWN', 'DAC_OVERRIDE', 'FSETID', 'FOWNER', 'MKNOD', 'NET_RAW', 'SETGID']
  .concat(['SETUID', 'SETFCAP', 'SETPCAP', 'NET_BIND_SERVICE', 'SYS_CHROOT', 'KILL', 'AUDIT_WRITE'])
  .map((name) => `CAP_${name}`);

const file = (path: string, text: string, mode = 0o644) => ({
  path,
  mode,
  content: Buffer.from(text).toString('base64'),
});

const SETUP: PodSetup = {
  hostname: 'web-1',
  domain: 'web.default.svc',
  epochMs: 1_800_000_000_000,
  entropy: Buffer.alloc(64, 3).toString('base64'),
  network: { mac: GUEST_MAC, address: '10.88.0.5/24', gateway: '10.88.0.1', mtu: 1450 },
  dns: { nameservers: ['10.96.0.10'], searches: ['default.svc'], options: ['ndots:5'] },
  hostAliases: [{ ip: '10.1.2.3', hostnames: ['one', 'two'] }],
  sysctls: { 'net.ipv4.ip_unprivileged_port_start': '0' },
  shareProcessNamespace: false,
  scratchSerial: 'scratch',
  volumes: [
    { name: 'shared', type: 'scratch' },
    { name: 'ram', type: 'memory', sizeLimitMib: 4 },
    {
      name: 'conf',
      type: 'files',
      content: { version: 1, files: [file('key', 'old'), file('d/x', 'y')] },
    },
  ],
};

const host = makeTestHost();
let vm: GuestVm;
let agent: Agent;
let bootMs = 0;
let count = 0;

before(async () => {
  const assets = await testAssets();
  const startMs = performance.now();
  vm = await startGuestVm(assets);
  agent = await connectAgent(await vm.connect(), host.options);
  await agent.setupPod(SETUP);
  bootMs = performance.now() - startMs;
});

after(async () => {
  await vm?.[Symbol.asyncDispose]();
});

const process = (argv: string[], overrides: Partial<ProcessSpec> = {}) =>
  processSpec(argv, {
    env: ['PATH=/bin'],
    security: {
      privileged: false,
      runAsNonRoot: false,
      noNewPrivileges: false,
      capabilities: DOCKER_DEFAULT,
      seccompDefault: true,
    },
    ...overrides,
  });

interface Options extends Partial<Omit<GuestContainerSpec, 'process'>> {
  process?: Partial<ProcessSpec>;
}

/** Starts a container and returns its id. */
async function launch(argv: string[], options: Options = {}): Promise<string> {
  const id = `c-${(count += 1)}`;
  const { process: own, ...rest } = options;
  await agent.startContainer({ ...containerSpec(id, argv), process: process(argv, own), ...rest });
  return id;
}

/** Runs a script to its end. */
async function sh(script: string, options: Options = {}) {
  const id = await launch(['sh', '-c', script], options);
  const exit = await host.exit(id);
  await agent.removeContainer(id);
  return { ...exit, out: host.text(id), err: host.text(id, 2) };
}

describe('A pod in a VM', () => {
  test('is ready soon', (context) => {
    const { startedUptimeMs, readyUptimeMs, kernelVersion } = agent.hello;
    const stages = `kernel ${startedUptimeMs} ms, agent ${readyUptimeMs - startedUptimeMs} ms`;
    context.diagnostic(`${kernelVersion}: ready after ${Math.round(bootMs)} ms (${stages})`);
    assert.ok(bootMs < BOOT_MS_MAX, `${bootMs} ms`);
  });

  test('runs a container with its output, code and message', async () => {
    const result = await sh('echo out; echo err >&2; echo why > /dev/termination-log; exit 42');
    const { out, err, exitCode, reason, message } = result;
    const expected = ['out\n', 'err\n', 42, 'Error', 'why\n'];
    assert.deepEqual([out, err, exitCode, reason, message], expected);
  });

  test('shows each container its own processes and the names of the pod', async () => {
    const result = await sh('echo $$; hostname; cat /etc/hostname; echo $HOSTNAME $HOME');
    assert.equal(result.out, '1\nweb-1\nweb-1\nweb-1 /root\n');
    const processes = await sh('ls /proc');
    const numbers = processes.out.split('\n').filter((name) => /^\d+$/.test(name));
    assert.deepEqual(numbers, ['1', '2'].slice(0, numbers.length));
    const hosts = await sh('cat /etc/hosts /etc/resolv.conf');
    assert.match(hosts.out, /^127.0.0.1\tlocalhost$/m);
    assert.match(hosts.out, /^10.1.2.3\tone\ttwo$/m);
    const resolver = 'search default.svc\nnameserver 10.96.0.10\noptions ndots:5\n';
    assert.ok(hosts.out.endsWith(resolver), hosts.out);
  });

  test('has its address, its route and the loopback interface', async () => {
    const { out } = await sh('ip addr; ip route');
    assert.match(out, /eth0: <.*\bUP\b.*> mtu 1450 /);
    assert.match(out, /inet 10.88.0.5\/24/);
    assert.match(out, /inet 127.0.0.1\/8/);
    assert.match(out, /^default via 10.88.0.1 dev eth0/m);
  });

  test('has the clock that was set', async () => {
    const { finishedAtMs } = await sh('true');
    assert.ok(Math.abs(finishedAtMs - SETUP.epochMs) < 120_000, `${finishedAtMs}`);
  });

  const failures: [string[], number, RegExp][] = [
    [['nope'], 127, /^exec: "nope": executable file not found in \$PATH$/],
    [['/etc/passwd'], 126, /^exec: "\/etc\/passwd": permission denied$/],
    [['/bin/no-shebang'], 126, /^exec \/bin\/no-shebang: exec format error$/],
  ];
  for (const [argv, code, message] of failures) {
    test(`says why it cannot start ${argv[0]}`, async () => {
      await assert.rejects(launch(argv), (error: unknown) => {
        assert.ok(error instanceof AgentError);
        assert.match(error.message, message);
        assert.deepEqual([error.reason, error.exitCode], ['StartError', code]);
        return true;
      });
    });
  }

  test('refuses a user that the image does not have', async () => {
    const message = /unable to find user ghost: no matching entries in passwd file/;
    await assert.rejects(launch(['true'], { process: { user: 'ghost' } }), message);
  });

  test('runs as the user, groups and rights that were asked for', async () => {
    const named = await sh('id', { process: { user: 'app', supplementalGroups: [5000] } });
    const groups = 'groups=1001(app),1002(more),5000';
    assert.equal(named.out.split('\n')[0], `uid=1000(app) gid=1001(app) ${groups}`);
    const numeric = await sh('id -u; id -g', { process: { user: '77', gid: 88 } });
    assert.equal(numeric.out, '77\n88\n');
    const root = await sh('cat /proc/self/status');
    assert.match(root.out, /^CapEff:\t00000000a80425fb$/m);
    assert.match(root.out, /^CapInh:\t0{16}$/m);
    assert.match(root.out, /^Seccomp:\t2$/m);
  });

  test('lets nobody out of a container', async () => {
    const tries = [
      'mount -t tmpfs x /tmp',
      'umount /proc',
      'echo 1 > /proc/sys/kernel/printk',
      'echo x > /sys/fs/cgroup/cgroup.procs',
      'mknod /tmp/d b 254 0 && cat /tmp/d',
      'echo b > /proc/sysrq-trigger',
      'cat /proc/kcore | head -c 1 | grep -q .',
      'ls /scratch',
      'ls /image',
    ];
    const script = tries.map((line) => `(${line}) 2>/dev/null && echo "${line}"`);
    const result = await sh(script.join('\n'));
    assert.equal(result.out, '');
  });

  test('tells signals, and kills what does not listen', async () => {
    const script = 'trap "echo term; exit 5" TERM; echo up; sleep 60 & wait';
    const id = await launch(['sh', '-c', script]);
    while (!host.text(id).includes('up')) await agent.stats();
    await agent.signalContainer(id, 15);
    assert.equal((await host.exit(id)).exitCode, 5);
    const deaf = await launch(['sleep', '60']);
    await agent.signalContainer(deaf, 9);
    const exit = await host.exit(deaf);
    assert.deepEqual([exit.exitCode, exit.signal, exit.oomKilled], [137, 9, false]);
  });

  test('tells that memory ran out', async () => {
    const resources = { cpuMillis: 0, cpuWeightMillis: 100, memoryBytes: 16 << 20 };
    const exit = await sh('dd if=/dev/zero of=/dev/null bs=40M count=1', { resources });
    assert.deepEqual([exit.exitCode, exit.oomKilled, exit.reason], [137, true, 'OOMKilled']);
  });

  test('outlives containers that take all memory and all processes', async () => {
    const hog = await sh('dd if=/dev/zero of=/dev/null bs=200M count=1; tail /dev/zero');
    assert.equal(hog.exitCode, 137);
    const bomb = await launch(['sh', '-c', 'f() { f | f & f; }; f 2>/dev/null']);
    await agent.stats();
    await agent.removeContainer(bomb);
    assert.equal((await sh('echo alive')).out, 'alive\n');
  });

  test('carries a lot of output unchanged', async () => {
    const result = await sh('seq 1 200000 | tee /dev/stderr');
    const expected = Array.from({ length: 200_000 }, (_, i) => `${i + 1}\n`).join('');
    const sum = (text: string) => createHash('md5').update(text).digest('hex');
    assert.deepEqual([sum(result.out), sum(result.err)], [sum(expected), sum(expected)]);
  });

  test('mounts volumes, and changes files as a whole', async () => {
    const mounts = [
      { volume: 'conf', path: '/etc/conf', subPath: '', readOnly: true },
      { volume: 'conf', path: '/one', subPath: 'key', readOnly: true },
      { volume: 'shared', path: '/data/deep', subPath: 'a/b', readOnly: false },
      { volume: 'shared', path: '/data', subPath: '', readOnly: false },
      { volume: 'ram', path: '/ram', subPath: '', readOnly: false },
    ];
    const id = await launch(['sleep', '1000'], { mounts });
    const run = async (script: string) => {
      const process_ = await agent.exec(id, process(['sh', '-c', script]));
      return textOf(process_.stdout);
    };
    assert.equal(await run('cat /etc/conf/key /etc/conf/d/x /one'), 'oldyold');
    assert.equal(await run('touch /etc/conf/new 2>&1 | grep -c Read-only'), '1\n');
    assert.equal(await run('echo z > /data/deep/f; cat /data/a/b/f; stat -c %a /data'), 'z\n777\n');
    assert.equal(await run('dd if=/dev/zero of=/ram/f bs=1M count=8 2>&1 | grep -c space'), '1\n');
    await agent.writeVolume('conf', { version: 2, files: [file('key', 'new')] });
    assert.equal(await run('cat /etc/conf/key; ls /etc/conf; cat /one'), 'newkey\nold');
    await agent.removeContainer(id);
    const kept = await sh('cat /data/a/b/f', { mounts: mounts.slice(3, 4) });
    assert.equal(kept.out, 'z\n');
  });

  test('follows no link out of a volume', async () => {
    const mounts = [{ volume: 'shared', path: '/data', subPath: '', readOnly: false }];
    const made = await sh('busybox ln -s / /data/root', { mounts });
    assert.equal(made.exitCode, 0);
    for (const subPath of ['root', 'root/etc', '../..', '/etc']) {
      const bad = [{ volume: 'shared', path: '/x', subPath, readOnly: false }];
      await assert.rejects(launch(['true'], { mounts: bad }), /cannot resolve subPath/, subPath);
    }
  });

  test('can have a root that is only read', async () => {
    const script = 'touch /x 2>&1; touch /dev/shm/y && echo shm';
    const result = await sh(script, { readOnlyRootfs: true });
    assert.match(result.out, /Read-only file system\nshm\n/);
  });

  test('has terminals', async () => {
    const tty = await launch(['sh'], { process: { tty: true }, stdin: true });
    await agent.resizeContainer(tty, { width: 90, height: 33 });
    agent.containerStdin(tty).write('stty size; tty; exit 9\n');
    assert.equal((await host.exit(tty)).exitCode, 9);
    assert.match(host.text(tty), /33 90\r\n\/dev\/pts\/0\r\n/);
    const id = await launch(['sleep', '1000']);
    const shell = await agent.exec(id, process(['sh'], { tty: true }));
    shell.stdin.write('tty; exit 3\n');
    assert.match(await textOf(shell.stdout), /\/dev\/pts\/0\r\n/);
    assert.equal((await shell.exited).exitCode, 3);
    await agent.removeContainer(id);
  });

  test('finds an image behind SCSI, and says when there is none', async () => {
    assert.equal((await sh('echo scsi', { imageSerial: 'image2' })).out, 'scsi\n');
    const message = /no disk "gone" after 10000 ms/;
    await assert.rejects(launch(['true'], { imageSerial: 'gone' }), message);
  });

  test('forwards ports and answers probes', async () => {
    const page = 'mkdir /tmp/www; echo page > /tmp/www/index.html';
    const script = `${page}; exec httpd -f -p 80 -h /tmp/www`;
    const id = await launch(['sh', '-c', script], { process: { user: 'app' } });
    const probe = { type: 'tcp', host: '', port: 80, timeoutMs: 2000 } as const;
    while (!(await agent.probe(probe)).success) await agent.stats();
    const connection = await agent.connectPort(80);
    connection.end('GET / HTTP/1.0\r\n\r\n');
    assert.match(await textOf(connection), /^HTTP\/1.[01] 200 OK\r\n[^]*page\n$/);
    const target = { type: 'http', scheme: 'http', host: '127.0.0.1', port: 80 } as const;
    const get = (path: string) => agent.probe({ ...target, path, headers: [], timeoutMs: 45_000 });
    assert.deepEqual(await get('/'), { success: true, message: 'page\n' });
    assert.equal((await get('/none')).message, 'HTTP probe failed with statuscode: 404');
    await agent.removeContainer(id);
  });

  test('keeps output and exits for a host that comes back', async () => {
    const script = 'i=0; while test $i -lt 20000; do i=$((i+1)); echo $i; done; exit 6';
    const id = await launch(['sh', '-c', script]);
    for (let hosts = 0; hosts < 5; hosts += 1) {
      while (!host.exits.has(id) && host.text(id).length < 2_000 * hosts) await agent.stats();
      agent.close();
      agent = await connectAgent(await vm.connect(), host.options);
      assert.equal(agent.hello.podReady, true);
    }
    assert.equal((await host.exit(id)).exitCode, 6);
    assert.equal(host.text(id), Array.from({ length: 20_000 }, (_, i) => `${i + 1}\n`).join(''));
  });

  test(`answers each of ${TAKEOVERS} hosts that take over (seed ${SEED})`, async () => {
    const random = seededRandom(SEED);
    const script = 'i=0; while true; do i=$((i+1)); echo $i; done';
    const id = await launch(['sh', '-c', script]);
    for (let hosts = 0; hosts < TAKEOVERS; hosts += 1) {
      const asked = Array.from({ length: Math.floor(random.next() * 4) }, () => agent.stats());
      for (const answer of asked) answer.catch(() => {});
      // With questions, answers and output on their way, or just after an answer.
      if (random.next() < 0.5) await systemClock.sleep(random.next() * TAKEOVER_PAUSE_MS);
      else await asked[0]?.catch(() => {});
      agent.close();
      agent = await connectAgent(await vm.connect(), host.options);
      await agent.stats();
    }
    await agent.removeContainer(id);
    const lines = host.text(id).split('\n').slice(0, -1);
    assert.ok(lines.length > 0);
    assert.deepEqual(
      lines,
      lines.map((_, i) => `${i + 1}`),
    );
  });

  test('powers off when told', async () => {
    await agent.shutdown();
    assert.equal(await vm.exited, 0);
    assert.match(await vm.console(), /Power down/);
  });
});
