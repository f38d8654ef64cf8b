import { dataDirectory, dataPaths } from './config.ts';
import { queryStatus, requestStop } from './control.ts';

export async function down(
  dataDir: string | undefined,
  options: { keepPods?: boolean },
): Promise<void> {
  const paths = dataPaths(dataDirectory(dataDir));
  const running = await queryStatus(paths.supervisorSocket);
  if (!running) {
    process.stdout.write(`nothing runs on ${paths.root}\n`);
    return;
  }
  await requestStop(paths.supervisorSocket, { keepPods: options.keepPods ?? false });
  process.stdout.write(options.keepPods ? 'stopped; the VMs run on\n' : 'stopped\n');
}
