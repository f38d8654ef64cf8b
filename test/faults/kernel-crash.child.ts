import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { openTestKernels } from './kernel-store.ts';

/** A process that imports, chooses, uses and removes kernels until it is killed. */
const [directory = '', seed = '0'] = process.argv.slice(2);
const store = await openTestKernels(directory);
const pod = join(directory, 'pods', `pod-${seed}`);
await mkdir(pod, { recursive: true });
process.stdout.write('ready\n');
for (let round = 0; ; round += 1) {
  const text = `kernel ${seed} ${round % 3} `.repeat(20_000);
  const content = { vmlinux: Buffer.from(text), modules: Buffer.alloc(0) };
  const facts = { release: `6.1-${seed}`, origin: 'a test' };
  await store.import('mine', { ...content, ...facts }, { replace: true });
  await store.use('mine');
  await store.acquire('mine', pod);
  await store.use('debian');
  await rm(pod, { recursive: true });
  await mkdir(pod);
  await store.remove('mine');
}
