import { run } from '../../base/exec.ts';
import { buildImage, pushImage } from '../../hyperd/registry/build.ts';
import type { ImageSpec } from '../../hyperd/registry/build.ts';

const BUSYBOX = '/bin/busybox';

/** An image of this machine's own static busybox: nothing is fetched from anywhere. */
export async function demoImage(): Promise<ImageSpec> {
  const applets = (await run(BUSYBOX, ['--list'])).trim().split('\n');
  const links = applets
    .filter((applet) => applet !== 'busybox')
    .map((applet) => ({ path: `bin/${applet}`, symlink: 'busybox' }));
  const passwd = 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n';
  return {
    layers: [
      [{ path: 'bin/busybox', source: BUSYBOX, mode: 0o755 }, ...links],
      [
        { path: 'etc/passwd', content: passwd },
        { path: 'etc/group', content: 'root:x:0:\nnogroup:x:65534:\n' },
        { path: 'tmp', directory: true, mode: 0o1777 },
        { path: 'root', directory: true, mode: 0o700 },
      ],
    ],
    config: { command: ['/bin/sh'], env: ['PATH=/bin'] },
  };
}

/** Pushes it into the embedded registry and returns the reference that pods use. */
export async function pushDemoImage(registryPort: number, signal?: AbortSignal): Promise<string> {
  const reference = `localhost:${registryPort}/demo/busybox:1`;
  await pushImage(reference, await buildImage(await demoImage()), signal ? { signal } : {});
  return reference;
}
