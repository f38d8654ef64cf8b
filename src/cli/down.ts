import { dataDirectory, dataPaths } from './config.ts';
import { queryStatus, requestStop } from './control.ts';
import { endLeftovers } from './leftovers.ts';

export async function down(
  dataDir: string | undefined,
  options: { keepPods?: boolean },
): Promise<void> {
  const paths = dataPaths(dataDirectory(dataDir));
  const running = await queryStatus(paths.supervisorSocket);
  if (!running) {
    const count = options.keepPods ? 0 : await endLeftovers(paths);
    const ended = `ended ${count} ${count === 1 ? 'pod' : 'pods'} that nobody looked after`;
    process.stdout.write(count > 0 ? `${ended}\n` : `nothing runs on ${paths.root}\n`);
    return;
  }
  await requestStop(paths.supervisorSocket, { keepPods: options.keepPods ?? false });
  process.stdout.write(options.keepPods ? 'stopped; the VMs run on\n' : 'stopped\n');
}
