import { Command, Option } from 'commander';
import type { HyperdClient } from '../../client/hyperd.ts';
import { MACHINE_TYPES } from '../../hyperd/vmm/qemu/models.ts';
import { UsageError } from '../errors.ts';
import { runProgram } from '../program.ts';
import {
  addImageCommands,
  addListCommands,
  addPodCommands,
  addPodGroup,
  addRunCommands,
  addSystemCommands,
} from './commands.ts';
import type { Session } from './commands.ts';
import { connect } from './connection.ts';
import type { Place } from './connection.ts';
import { plain, withFormat } from './format.ts';

/**
 * `hyperctl`: hyperd's own command line, for pods without a cluster, and to look behind one.
 */
const program = new Command('hyperctl')
  .description('Pods in virtual machines of their own, without a cluster')
  .enablePositionalOptions()
  .option(
    '--data-dir <directory>',
    'where everything of hyperd on this machine lies',
    process.env.HYPERNETES_DATA_DIR,
  )
  .addOption(
    new Option('--host <url>', 'a hyperd elsewhere, https://host:port').env('HYPERCTL_HOST'),
  )
  .addOption(new Option('--tls-ca <file>', 'who signed its certificate').env('HYPERCTL_TLS_CA'))
  .addOption(new Option('--tls-cert <file>', 'what it is shown').env('HYPERCTL_TLS_CERT'))
  .addOption(new Option('--tls-key <file>', 'the key of that').env('HYPERCTL_TLS_KEY'))
  .exitOverride()
  .showHelpAfterError('(see "hyperctl help")');

const place = () => program.opts<Place>();

/** Whoever waits for a program waits for its connections too. */
async function withClient(
  opened: Promise<HyperdClient>,
  work: (client: HyperdClient) => Promise<number | void>,
): Promise<void> {
  const client = await opened;
  try {
    process.exitCode = (await work(client)) ?? 0;
  } finally {
    client.close();
  }
}

const session: Session = {
  use: (work) => withClient(connect(place()), work),
  useOrStart: (work) => {
    const start = async (where: Place) => (await import('./daemon.ts')).startDaemon(where);
    return withClient(connect(place(), start), work);
  },
};

addRunCommands(program, session);
addListCommands(program, session);
addPodCommands(program, session);
addPodGroup(program, session);
addImageCommands(program, session);
addSystemCommands(program, session);

program
  .command('daemon')
  .description('run hyperd alone on this machine, or stop it')
  .argument('[action]', 'run, or stop')
  .option('--detach', 'return when it is ready')
  .option('--cidr <range>', 'addresses of pods (default 10.87.0.0/16)')
  .addOption(
    new Option('--machine <model>', 'device model of VMs (default microvm)').choices(MACHINE_TYPES),
  )
  .option('--warm-pool <policy>', 'VMs that wait for pods: adaptive (default), off, or fixed:N')
  .option('--listen <host:port>', 'serve clients elsewhere by TLS; "none" ends that')
  .option('--tls-cert <file>', "hyperd's certificate, PEM")
  .option('--tls-key <file>', 'the key of it')
  .option('--client-ca <file>', 'whoever has a certificate of it may do everything')
  .option('--remove-pods', 'with stop: end and remove all pods too')
  .action(async (action, flags) => {
    const { runDaemon, stopDaemon } = await import('./daemon.ts');
    if (action === 'stop') return stopDaemon(place(), flags.removePods ?? false);
    if (action !== undefined && action !== 'run') {
      throw new UsageError(`Cannot ${action} the daemon: it can be run or stopped.`);
    }
    return runDaemon(place(), flags);
  });

withFormat(
  program.command('version').description('of hyperctl, and of hyperd where one runs'),
).action(async (options) => {
  const { version } = await import('./system.ts');
  const client = await connect(place()).catch(() => undefined);
  await version(client, options);
  client?.close();
});

program
  .command('completion')
  .description('print what a shell needs to complete commands and names')
  .argument('<shell>', 'bash, zsh or fish')
  .addHelpText('after', '\nFor bash:\n  source <(hyperctl completion bash)')
  .action(async (shell) => (await import('./completion.ts')).printCompletion(shell));

program
  .command('complete', { hidden: true })
  .argument('[words...]')
  .action(async (words) => {
    const { completionsFor, namesOf } = await import('./completion.ts');
    const { words: found, dynamic } = completionsFor(program, words);
    const client = dynamic && (await connect(place()).catch(() => undefined));
    const names = client && dynamic ? await namesOf(client, dynamic) : [];
    client?.close();
    for (const word of [...found, ...names]) process.stdout.write(`${word}\n`);
  });

await runProgram(program, { show: plain });
