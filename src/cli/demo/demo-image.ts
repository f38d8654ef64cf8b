import { readFile } from 'node:fs/promises';
import { systemClock } from '../../base/clock.ts';
import { run } from '../../base/exec.ts';
import { buildImage, pushImage } from '../../hyperd/registry/build.ts';
import type { ImageSpec } from '../../hyperd/registry/build.ts';

const BUSYBOX = '/bin/busybox';
const REPOSITORY = 'demo/busybox';
const TAG = '1';

type Member = ImageSpec['layers'][number][number];

const file = (path: string, content: string): Member => ({
  path,
  type: 'file',
  content: Buffer.from(content),
});

/** An image of this machine's own static busybox: nothing is fetched from anywhere. */
export async function demoImage(): Promise<ImageSpec> {
  const applets = (await run(BUSYBOX, ['--list'])).trim().split('\n');
  const links = applets
    .filter((applet) => applet !== 'busybox')
    .map((applet): Member => ({ path: `bin/${applet}`, type: 'symlink', linkName: 'busybox' }));
  return {
    layers: [
      [
        { path: 'bin/busybox', type: 'file', mode: 0o755, content: await readFile(BUSYBOX) },
        ...links,
      ],
      [
        file('etc/passwd', 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n'),
        file('etc/group', 'root:x:0:\nnogroup:x:65534:\n'),
        { path: 'tmp', type: 'directory', mode: 0o1777 },
        { path: 'root', type: 'directory', mode: 0o700 },
      ],
    ],
    config: { command: ['/bin/sh'], env: ['PATH=/bin'] },
  };
}

/** Pushes it into the embedded registry and returns the reference that pods use. */
export async function pushDemoImage(registryPort: number, signal?: AbortSignal): Promise<string> {
  await pushImage(buildImage(await demoImage()), {
    registry: `http://127.0.0.1:${registryPort}`,
    repository: REPOSITORY,
    tag: TAG,
    clock: systemClock,
    ...(signal ? { signal } : {}),
  });
  return `localhost:${registryPort}/${REPOSITORY}:${TAG}`;
}
