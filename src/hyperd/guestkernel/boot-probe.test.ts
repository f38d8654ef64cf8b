import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { Clock } from '../../base/clock.ts';
import { systemClock } from '../../base/clock.ts';
import { silentLog } from '../../base/log.ts';
import { seededRandom } from '../../base/random.ts';
import { AgentError } from '../agent/agent.ts';
import { createScriptedGuest } from '../daemon/testing/guest.fake.ts';
import type { ScriptedGuest } from '../daemon/testing/guest.fake.ts';
import { createFakeHypervisor } from '../vmm/fake/fake.ts';
import { bootProbe } from './boot-probe.ts';
import { optionsBehind } from './probe-verdict.ts';
import { KernelError } from './store.ts';

// Goal: what a kernel lacks is told by its name, and nothing is left of the attempt. Method: a
// pretended VM whose guest does what one with a bad kernel does.

interface Outcome {
  result?: Awaited<ReturnType<typeof bootProbe>>;
  message: string;
  guest: ScriptedGuest | undefined;
}

async function attempt(
  behave: (guest: ScriptedGuest) => void,
  clock: Clock = systemClock,
): Promise<Outcome> {
  const root = await mkdtemp(join(tmpdir(), 'hypernetes-probe-'));
  let guest: ScriptedGuest | undefined;
  const hypervisor = createFakeHypervisor({
    clock: systemClock,
    boot: (vm) => behave((guest = createScriptedGuest(vm))),
    agent: (connection) => void connection.resume().write('hello'),
  });
  try {
    const result = await bootProbe(
      { kernelPath: '/kernel', initrdPath: '/initrd', kernelArguments: ['a=b'] },
      {
        hypervisor,
        connectAgent: async (connection, options) => {
          await once(connection, 'data');
          assert.ok(guest);
          return guest.open(connection, options);
        },
        busyboxPath: '/bin/true',
        directory: join(root, 'probe'),
        clock,
        random: seededRandom(1),
        log: silentLog,
      },
      AbortSignal.timeout(20_000),
    );
    return { result, message: '', guest };
  } catch (error) {
    assert.ok(error instanceof KernelError, String(error));
    assert.equal(error.reason, 'Refused');
    return { message: error.message, guest };
  } finally {
    assert.equal(hypervisor.running.size, 0);
    assert.deepEqual(await readdir(root), []);
    await rm(root, { recursive: true });
  }
}

/** Answers as hyperstart does once the container's process has ended. */
function runs(guest: ScriptedGuest, output: string, exitCode = 0): void {
  guest.before = (op, id) => {
    if (op !== 'startContainer') return;
    setImmediate(() => void guest.print(id, output).then(() => guest.exit(id, exitCode)));
  };
}

const refuses = (op: string, reason: string, message: string) => (guest: ScriptedGuest) => {
  guest.before = (asked) => {
    if (asked === op) throw new AgentError(reason, message);
  };
};

describe('bootProbe()', () => {
  test('passes a kernel that runs a limited container from an attached image', async () => {
    const { result, guest } = await attempt((each) => runs(each, 'cpu memory pids\n'));
    assert.equal(result?.kernelVersion, '6.1.0-fake');
    assert.equal(guest?.setup?.scratchSerial, 'scratch');
    const container = guest?.containers.get('probe')?.spec;
    assert.deepEqual([container?.imageFsType, container?.imageSerial], ['erofs', 'image']);
    assert.ok((container?.resources.cpuMillis ?? 0) > 0);
    assert.deepEqual(guest?.vm.spec.kernelArguments, ['a=b']);
  });

  const bad: [what: string, behave: (guest: ScriptedGuest) => void, message: RegExp][] = [
    [
      'a panic, by its console',
      ({ vm }) => {
        vm.print('VFS: Unable to mount root fs on unknown-block(0,0)\n');
        vm.panic('Kernel panic');
      },
      /seems to lack CONFIG_BLK_DEV_INITRD\. Its console ends with "VFS: Unable/,
    ],
    [
      'a guest without a port',
      ({ vm }) => {
        vm.print('\x1b[2Jhyperstart: no control port "io.hypernetes.control"\n');
        vm.powerOff();
      },
      /CONFIG_VIRTIO_CONSOLE.* Its console ends with "\[2Jhyperstart: no/,
    ],
    [
      'no erofs',
      refuses('startContainer', 'Invalid', 'cannot mount the image "image": No such device'),
      /does not run a pod on fake: cannot mount the image .*lack CONFIG_EROFS_FS/,
    ],
    [
      'no ext4',
      refuses('setupPod', 'Invalid', 'cannot mount the scratch disk: No such device'),
      /CONFIG_EXT4_FS/,
    ],
    ['no controllers', (guest) => runs(guest, 'cpu\n'), /no controller for memory, pids.*MEMCG/],
    ['a bad end', (guest) => runs(guest, '', 139), /ended with exit code 139/],
  ];
  for (const [what, behave, message] of bad) {
    test(`refuses a kernel after ${what}`, async () => {
      assert.match((await attempt(behave)).message, message);
    });
  }

  test('gives up on a kernel that hangs', async () => {
    let expire = () => {};
    const clock: Clock = {
      ...systemClock,
      after(delayMs, action) {
        assert.ok(delayMs >= 60_000);
        expire = action;
        return { cancel: () => {} };
      },
    };
    const hang = ({ vm }: ScriptedGuest) => {
      vm.print('Booting\n');
      setImmediate(() => expire());
    };
    const { message } = await attempt((guest) => {
      guest.before = () => new Promise(() => {});
      hang(guest);
    }, clock);
    assert.match(message, /was not done within 180 s\. Its console ends with "Booting"/);
  });
});

test('optionsBehind() names each option once, and none where nothing is known', () => {
  assert.deepEqual(optionsBehind('all is well', ''), []);
  const lacking = optionsBehind('cannot mount the root of "x": No such device', 'cgroup2: x');
  assert.equal(lacking[0], 'CONFIG_OVERLAY_FS');
  assert.equal(new Set(lacking).size, lacking.length);
});
