import { run } from '../../base/exec.ts';
import { buildImage, pushImage } from '../../hyperd/registry/build.ts';

const BUSYBOX = '/bin/busybox';

/** An image of this machine's own static busybox, in the embedded registry. */
export async function pushDemoImage(registryPort: number, signal?: AbortSignal): Promise<string> {
  const applets = (await run(BUSYBOX, ['--list'], signal ? { signal } : {})).trim().split('\n');
  const links = applets
    .filter((applet) => applet !== 'busybox')
    .map((applet) => ({ path: `bin/${applet}`, symlink: 'busybox' }));
  const passwd = 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n';
  const image = await buildImage({
    layers: [
      [
        { path: 'bin/busybox', source: BUSYBOX, mode: 0o755 },
        ...links,
        { path: 'etc/passwd', content: passwd, mode: 0o644 },
        { path: 'etc/group', content: 'root:x:0:\nnogroup:x:65534:\n', mode: 0o644 },
        { path: 'tmp', directory: true, mode: 0o1777 },
        { path: 'root', directory: true, mode: 0o700 },
      ],
    ],
    config: { command: ['/bin/sh'], env: ['PATH=/bin'] },
  });
  const reference = `localhost:${registryPort}/demo/busybox:1`;
  await pushImage(reference, image, signal);
  return reference;
}
