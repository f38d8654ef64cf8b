import { Command, Option } from 'commander';
import { MACHINE_TYPES } from '../hyperd/vmm/qemu/models.ts';
import { MAX_PODS } from './config.ts';
import { UsageError } from './errors.ts';
import { addInsightCommands } from './insight.ts';
import { addKernelCommands } from './kernel/commands.ts';
import { addLoginCommands } from './login/commands.ts';
import { refuseSecrets } from './login/secrets.ts';
import { addPeopleCommands } from './people/commands.ts';
import { runProgram } from './program.ts';
import { addQuotaCommands, addTenantCommands } from './tenant/commands.ts';
import { parseWarmPool } from './warm-pool.ts';

/**
 * The command line. Each command's code is loaded when it is called: `hypernetes status` does not
 * load a server.
 */
const program = new Command('hypernetes')
  .description('A secure multi-tenant Kubernetes in which every pod is its own micro-VM')
  .option(
    '--data-dir <directory>',
    'where everything of this machine lies',
    process.env.HYPERNETES_DATA_DIR,
  )
  .exitOverride()
  .showHelpAfterError('(see "hypernetes help")');

const port = (name: string, what: string, fallback?: number) =>
  new Option(`--${name} <port>`, what).argParser(parsePort).default(fallback);

const warmPool = () =>
  new Option(
    '--warm-pool <policy>',
    'VMs that wait for pods: adaptive (default), off, or fixed:N of each kind',
  ).argParser(parseWarmPool);

const machine = () =>
  new Option('--machine <model>', 'device model of VMs (default microvm)').choices(MACHINE_TYPES);

const maxPods = () =>
  new Option(
    '--max-pods <count>',
    `pods that this machine takes (default ${MAX_PODS.default}, at most ${MAX_PODS.limit})`,
  ).argParser(parseMaxPods);

program
  .command('demo')
  .description('start a cluster if none runs, and show pods in their own VMs')
  .option('--json', 'print what happened as JSON')
  .option('--keep', 'leave the pods of the demo running')
  .action(async (options) => (await import('./demo.ts')).demo(dataDir(), options));

program
  .command('up')
  .description('start the cluster on this machine')
  .option('--detach', 'return when the node is Ready')
  .option('--address <ip>', 'address under which other machines reach this one')
  .option('--node-name <name>', 'name of this machine in the cluster')
  .addOption(port('api-port', 'port of the Kubernetes API (default 6443)'))
  .addOption(port('kubelet-port', 'port of the kubelet (default 10250)'))
  .addOption(port('registry-port', 'port of the embedded registry (default 5000)'))
  .addOption(machine())
  .addOption(warmPool())
  .addOption(maxPods())
  .addOption(
    new Option('--tenant-nodes <how>', 'whether tenants see nodes (default hidden)').choices([
      'hidden',
      'sanitised',
    ]),
  )
  .option('--keystone <url>', 'take people from this Keystone ("embedded": from our own)')
  .option('--keystone-credentials <file>', 'openrc file of a user who may validate tokens')
  .option('--keystone-ca <file>', "CA of Keystone's certificate, PEM")
  .addOption(
    new Option(
      '--keystone-tenants <how>',
      'whether projects get a tenant at first use (default existing)',
    ).choices(['create', 'existing']),
  )
  .action(async (options) => (await import('./up.ts')).up(dataDir(), options));

program
  .command('node')
  .description('join this machine to a cluster')
  .option('--server <url>', 'https://address:port of the server')
  .option('--token <token>', 'from "hypernetes token create" on the server')
  .option('--detach', 'return when the node is Ready')
  .option('--address <ip>', 'address under which the server reaches this machine')
  .option('--node-name <name>', 'name of this machine in the cluster')
  .addOption(port('kubelet-port', 'port of the kubelet (default 10250)'))
  .addOption(port('registry-port', "port of the server's registry (default 5000)"))
  .addOption(machine())
  .addOption(warmPool())
  .addOption(maxPods())
  .action(async (options) => (await import('./join.ts')).joinNode(dataDir(), options));

program
  .command('down')
  .description("stop everything on this machine; the cluster's state is kept")
  .option('--keep-pods', 'let the VMs run on, for the next "up" to take over')
  .action(async (options) => (await import('./down.ts')).down(dataDir(), options));

program
  .command('status')
  .description('what runs on this machine')
  .option('--json', 'print it as JSON')
  .action(async (options) => (await import('./status.ts')).status(dataDir(), options));

program
  .command('doctor')
  .description('find out what this machine can do, by doing it')
  .option('--json', 'print it as JSON')
  .option('--full', 'run the suite of hypervisors without KVM too, which takes a minute')
  .action(async (options) => (await import('./doctor.ts')).doctor(dataDir(), options));

program
  .command('kubeconfig')
  .description("print the administrator's kubeconfig")
  .option('--path', 'print the path of the file instead')
  .action(async (options) => (await import('./kubeconfig.ts')).kubeconfig(dataDir(), options));

program
  .command('token')
  .description('print a command with which another machine can join')
  .addOption(
    new Option('--ttl <duration>', 'how long it is good, such as 30m or 24h').default('24h'),
  )
  .argument('[action]', 'create', 'create')
  .action(async (_action, options) => (await import('./token.ts')).createToken(dataDir(), options));

addLoginCommands(program, place);
addTenantCommands(program, place);
addQuotaCommands(program, place);
addPeopleCommands(program, place);
addInsightCommands(program, place);
addKernelCommands(program, dataDir);

program
  .command('identity')
  .description('the embedded identity service')
  .command('recover')
  .description("where its administrator's password is; a new one if that is lost")
  .option('--yes', 'make a new password if it is needed, without asking')
  .option('--json', 'print it as JSON')
  .action(async (options) => (await import('./recover.ts')).recoverIdentity(dataDir(), options));

program
  .command('logs')
  .description('print the log of a component: server, kubelet, hyperd, supervisor')
  .argument('[component]')
  .option('-f, --follow', 'go on as it grows')
  .option('-n, --lines <count>', 'how many lines from the end', '100')
  .action(async (component, options) =>
    (await import('./logs.ts')).logs(dataDir(), component, options),
  );

program
  .command('bench')
  .description(
    'measure: pod-start, rate, density, streams, kernels, api, store, image, footprint, …',
  )
  .argument('<name>')
  .option('--json', 'print the result as JSON')
  .option('-n, --count <count>', 'how many times')
  .option('--pods <count>', 'of density: how many pods')
  .action(async (name, options) => (await import('./bench.ts')).bench(dataDir(), name, options));

program
  .command('test')
  .description('run all tests of the project')
  .argument('[stage...]', 'only these: style, unit, integration, attack, faults, e2e')
  .action(async (stages) => (await import('./test.ts')).runTests(dataDir(), stages));

program
  .command('version')
  .description('print the version')
  .action(async () => (await import('./version.ts')).printVersion());

program
  .command('setup', { hidden: true })
  .description('set the machine up and do nothing else')
  .action(() => console.log('set-up is complete'));

program
  .command('setup-assets', { hidden: true })
  .requiredOption('--kernel-dir <directory>')
  .action(async (options) => (await import('./assets.ts')).buildAssets(dataDir(), options));

program
  .command('run', { hidden: true })
  .description('a component of the cluster, started by the supervisor')
  .argument('<component>')
  .action(async (component) => (await import('./run.ts')).runComponent(dataDir(), component));

function dataDir(): string | undefined {
  return program.opts<{ dataDir?: string }>().dataDir;
}

function parseMaxPods(text: string): number {
  const value = Number(text);
  if (Number.isInteger(value) && value >= 1 && value <= MAX_PODS.limit) return value;
  throw new UsageError(
    `Cannot use --max-pods "${text}": it must be a whole number from 1 to ${MAX_PODS.limit}.`,
  );
}

/** Where somebody says nothing about the directory, they may mean another cluster. */
function place() {
  return { dataDir: dataDir(), isNamed: program.getOptionValueSource('dataDir') === 'cli' };
}

function parsePort(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1 || value > 65535) {
    throw new UsageError(`Cannot use port "${text}": it must be a whole number from 1 to 65535.`);
  }
  return value;
}

await runProgram(program, { check: () => refuseSecrets(process.argv.slice(2)) });
