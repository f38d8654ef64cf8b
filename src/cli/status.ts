import { dataDirectory, dataPaths } from './config.ts';
import { queryStatus } from './control.ts';
import { table } from './table.ts';

export async function status(
  dataDir: string | undefined,
  options: { json?: boolean },
): Promise<void> {
  const paths = dataPaths(dataDirectory(dataDir));
  const machine = await queryStatus(paths.supervisorSocket);
  if (options.json) {
    process.stdout.write(`${JSON.stringify(machine ?? { components: [] }, null, 2)}\n`);
  } else if (!machine) {
    process.stdout.write(`nothing runs on ${paths.root}: start it with "hypernetes up"\n`);
  } else {
    const rows = machine.components.map(({ name, state, pid, restartCount, lastExit }) => [
      name,
      state,
      pid ? String(pid) : '-',
      String(restartCount),
      lastExit || '-',
    ]);
    const { role, nodeName, version } = machine;
    process.stdout.write(`${role} ${nodeName}, version ${version}, ${paths.root}\n\n`);
    process.stdout.write(table(['COMPONENT', 'STATE', 'PID', 'RESTARTS', 'LAST EXIT'], rows));
  }
  if (!machine) process.exitCode = 3;
}
