import type { ChildProcess } from 'node:child_process';
import {
  chmod,
  copyFile,
  mkdir,
  mkdtemp,
  readFile,
  rm,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { run, start } from '../../src/base/exec.ts';
import { kernelArguments } from '../../src/hyperd/guestkernel/arguments.ts';
import { buildGuestAssets } from '../../src/hyperd/guestkernel/assets.ts';
import type { GuestAssets } from '../../src/hyperd/guestkernel/assets.ts';
import { downloadKernelPackage } from '../../src/hyperd/guestkernel/package.ts';

/** A guest under QEMU without hyperd, jail and network: kernel, hyperstart and the wire only. */

const ROOT = new URL('../../', import.meta.url).pathname;
export const GUEST_MAC = '52:54:00:12:34:56';
const SOCKET_POLL_MS = 5;
const SOCKET_POLLS_MAX = 2_000;

export interface GuestVm extends AsyncDisposable {
  /** A new connection to the control port; the one before is closed by its owner. */
  connect(): Promise<Socket>;
  console(): Promise<string>;
  exited: Promise<number | null>;
}

/** Kernel and initramfs, made anew in `build/guest-test` from the package in `build/cache`. */
export async function testAssets(): Promise<TestAssets> {
  const build = join(ROOT, 'build');
  await mkdir(build, { recursive: true });
  const make = ['make', '-s', '-C', join(ROOT, 'guest'), `OUT=${build}`];
  await run('flock', [join(build, '.guest.lock'), ...make], { timeoutMs: 120_000 });
  const debPath =
    process.env['HYPERNETES_KERNEL_DEB'] ?? (await downloadKernelPackage(join(build, 'cache')));
  const assets = await buildGuestAssets({
    debPath,
    hyperstartPath: join(build, 'hyperstart'),
    outDir: join(build, 'guest-test'),
  });
  return { ...assets, tscKhz: Number(await run(join(build, 'tsckhz'), [])) };
}

const APPLETS =
  'sh cat cut dd echo false head hostname httpd id ip kill ls md5sum mkdir mount nc ps readlink ' +
  'seq sleep stat stty sync tail tee test touch tr true tty umount uname wc yes mknod env';

/** An image of the machine's own static busybox, and an empty scratch disk. */
async function makeDisks(directory: string): Promise<Disks> {
  const root = join(directory, 'root');
  await mkdir(join(root, 'bin'), { recursive: true });
  await mkdir(join(root, 'etc'));
  await mkdir(join(root, 'tmp'));
  await chmod(join(root, 'tmp'), 0o1777);
  await copyFile('/bin/busybox', join(root, 'bin/busybox'));
  for (const name of APPLETS.split(' ')) await symlink('busybox', join(root, 'bin', name));
  await symlink('../../../../etc', join(root, 'escape'));
  const users = ['root:x:0:0::/root:/bin/sh', 'app:x:1000:1001::/tmp:/bin/sh', ''];
  await writeFile(join(root, 'etc/passwd'), users.join('\n'));
  await writeFile(join(root, 'etc/group'), 'root:x:0:\napp:x:1001:\nmore:x:1002:x,app\n');
  await writeFile(join(root, 'bin/no-shebang'), 'echo no\n', { mode: 0o755 });
  const image = join(directory, 'image');
  const scratch = join(directory, 'scratch');
  await run('mkfs.erofs', [image, root]);
  await writeFile(scratch, '');
  await run('truncate', ['-s', '256M', scratch]);
  await run('mkfs.ext4', ['-q', '-F', '-O', '^has_journal', scratch]);
  return { image, scratch };
}

interface TestAssets extends GuestAssets {
  tscKhz: number;
}

interface Disks {
  image: string;
  scratch: string;
}

function argumentsOf(assets: TestAssets, directory: string, disks: Disks): string[] {
  const append = kernelArguments({ accelerator: 'tcg', tscKhz: assets.tscKhz });
  const disk = (id: string, path: string, device: string, readOnly: boolean) => [
    '-drive',
    `if=none,id=${id},file=${path},format=raw,readonly=${readOnly ? 'on' : 'off'}`,
    '-device',
    `${device},drive=${id},serial=${id}`,
  ];
  return [
    ...['-M', 'microvm,acpi=on', '-global', 'virtio-mmio.force-legacy=false'],
    ...['-accel', 'tcg,tb-size=64', '-cpu', 'max', '-m', '128'],
    ...['-nodefaults', '-no-user-config', '-no-reboot', '-display', 'none'],
    ...['-serial', `file:${directory}/console`],
    ...['-kernel', assets.kernelPath, '-initrd', assets.initrdPath],
    ...['-append', append.map(({ argument }) => argument).join(' ')],
    ...['-device', 'virtio-serial-device'],
    ...['-chardev', `socket,id=control,path=${directory}/control,server=on,wait=off`],
    ...['-device', 'virtserialport,chardev=control,name=io.hypernetes.control'],
    // A network card on a hub of its own: configured, and connected to nothing.
    ...['-netdev', 'hubport,id=net,hubid=0'],
    ...['-device', `virtio-net-device,netdev=net,mac=${GUEST_MAC}`],
    ...disk('scratch', disks.scratch, 'virtio-blk-device', false),
    ...['-device', 'virtio-scsi-device'],
    // One image by virtio-blk, the same one again by SCSI: both kinds of serial are looked for.
    ...disk('image', disks.image, 'virtio-blk-device', true),
    ...disk('image2', disks.image, 'scsi-hd', true),
  ];
}

export async function startGuestVm(assets: TestAssets): Promise<GuestVm> {
  const directory = await mkdtemp(join(tmpdir(), 'hypernetes-vm-'));
  const disks = await makeDisks(directory);
  const child: ChildProcess = start('qemu-system-x86_64', argumentsOf(assets, directory, disks), {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  const exited = new Promise<number | null>((resolve) => child.on('close', resolve));
  let over = false;
  void exited.then(() => (over = true));
  return {
    exited,
    console: () => readFile(join(directory, 'console'), 'latin1'),
    async connect() {
      for (let i = 0; i < SOCKET_POLLS_MAX && !over; i += 1) {
        const socket = await tryConnect(join(directory, 'control'));
        if (socket) return socket;
        await new Promise((resolve) => setTimeout(resolve, SOCKET_POLL_MS));
      }
      throw new Error('QEMU does not listen on its control socket');
    },
    async [Symbol.asyncDispose]() {
      child.kill('SIGKILL');
      await exited;
      await rm(directory, { recursive: true, force: true });
    },
  };
}

function tryConnect(path: string): Promise<Socket | undefined> {
  return new Promise((resolve) => {
    const socket = connect(path, () => resolve(socket));
    socket.once('error', () => resolve(undefined));
  });
}
