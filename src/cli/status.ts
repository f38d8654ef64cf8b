import { dataDirectory, dataPaths } from './config.ts';
import { queryStatus } from './control.ts';
import { countVms } from './leftovers.ts';
import { table } from './table.ts';

const idle = (root: string) => `nothing runs on ${root}: start it with "hypernetes up"\n`;

const abandoned = (root: string, count: number) =>
  `nothing looks after ${root}, where ${count} ${count === 1 ? 'VM runs' : 'VMs run'}: ` +
  '"hypernetes up" takes over, "hypernetes down" ends what runs\n';

export async function status(
  dataDir: string | undefined,
  options: { json?: boolean },
): Promise<void> {
  const paths = dataPaths(dataDirectory(dataDir));
  const machine = await queryStatus(paths.supervisorSocket);
  if (options.json) {
    process.stdout.write(`${JSON.stringify(machine ?? { components: [] }, null, 2)}\n`);
  } else if (!machine) {
    const count = await countVms(paths);
    process.stdout.write(count > 0 ? abandoned(paths.root, count) : idle(paths.root));
  } else {
    const rows = machine.components.map(({ name, state, pid, restartCount, lastExit }) => [
      name,
      state,
      pid ? String(pid) : '-',
      String(restartCount),
      lastExit || '-',
    ]);
    const { role, nodeName, version, machine: model } = machine;
    process.stdout.write(
      `${role} ${nodeName}, version ${version}, VMs of ${model}, ${paths.root}\n\n`,
    );
    process.stdout.write(table(['COMPONENT', 'STATE', 'PID', 'RESTARTS', 'LAST EXIT'], rows));
  }
  if (!machine) process.exitCode = 3;
}
