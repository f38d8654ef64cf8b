import { Option } from 'commander';
import type { Command } from 'commander';
import type { HyperdClient } from '../../client/hyperd.ts';
import { withFormat } from './format.ts';

/**
 * The commands of `hyperctl`. The code of each is loaded when it is called.
 */
export interface Session {
  /** Runs with a client; what is returned is the exit code. */
  use(work: (client: HyperdClient) => Promise<number | void>): Promise<void>;
  /** The same, and starts hyperd on this machine where none runs. */
  useOrStart(work: (client: HyperdClient) => Promise<number | void>): Promise<void>;
}

const collect = (value: string, before: string[] | undefined) => [...(before ?? []), value];

const repeatable = (flags: string, description: string) =>
  new Option(flags, description).argParser(collect);

const pullPolicy = () =>
  new Option('--pull <when>', 'when to pull the image').choices(['always', 'missing', 'never']);

/** Of commands that change a pod. */
const force = 'also a pod of Kubernetes';

export function addRunCommands(program: Command, session: Session): void {
  program
    .command('run')
    .description('run an image in a new pod: a virtual machine of its own')
    .argument('<image>', 'its name, or the beginning of its id')
    .argument('[command...]', 'in place of what the image runs')
    .passThroughOptions()
    .option('-d, --detach', 'print the name of the pod once it runs, and return')
    .option('-i, --interactive', 'give it the standard input')
    .option('-t, --tty', 'give it a terminal; with -i, ctrl-p ctrl-q lets go of it')
    .option('--rm', 'remove the pod when it ends')
    .addOption(repeatable('-e, --env <NAME=value>', 'a variable; NAME alone for what it is here'))
    .option('-w, --workdir <path>', 'where it works')
    .option('-u, --user <user>', 'uid, name, uid:gid or name:group')
    .option('--name <name>', 'of the pod')
    .option('--hostname <name>', 'of the pod (default: its name)')
    .option('-m, --memory <size>', 'such as 512m or 1g (default 128m)')
    .option('--cpus <count>', 'such as 0.5 or 2')
    .addOption(repeatable('-p, --publish <mapping>', '[ADDRESS:][PORT:]CONTAINER-PORT, TCP'))
    .addOption(
      repeatable(
        '-v, --volume <volume>',
        'memory:SIZE:/path, scratch:/path, or FILE:/path (a copy)',
      ),
    )
    .option('--entrypoint <program>', "in place of the image's")
    .addOption(repeatable('-l, --label <NAME=value>', 'kept with the pod'))
    .option('--read-only', "the image's files cannot be written")
    .option('--privileged', 'all capabilities, inside of its own machine')
    .option('--kernel <name>', 'of the pod\'s machine; see "hyperctl kernel ls"')
    .addOption(pullPolicy().default('missing'))
    .addOption(
      new Option('--restart <policy>', 'whether it is started again when it ends').choices(['no']),
    )
    .action((image, command, options) =>
      session.useOrStart(async (client) =>
        (await import('./run.ts')).run(client, image, command, options),
      ),
    );
  addStreamCommands(program, session);
}

function addStreamCommands(program: Command, session: Session): void {
  program
    .command('exec')
    .description('run a further command in a pod')
    .argument('<pod>')
    .argument('<command...>')
    .passThroughOptions()
    .option('-i, --interactive', 'give it the standard input')
    .option('-t, --tty', 'give it a terminal')
    .option('-c, --container <name>', 'which one, where the pod has several')
    .addOption(repeatable('-e, --env <NAME=value>', 'a variable'))
    .option('-w, --workdir <path>', 'where it works')
    .option('-u, --user <user>', 'uid, name, uid:gid or name:group')
    .action((pod, command, options) =>
      session.use(async (client) =>
        (await import('./attach.ts')).exec(client, pod, command, options),
      ),
    );
  program
    .command('attach')
    .description("join this terminal to a container's own process")
    .argument('<pod>')
    .option('-c, --container <name>', 'which one, where the pod has several')
    .option('--no-stdin', 'look on, and send nothing')
    .action((pod, options) =>
      session.use(async (client) => (await import('./attach.ts')).attach(client, pod, options)),
    );
  program
    .command('logs')
    .description('what a container has written')
    .argument('<pod>')
    .option('-c, --container <name>', 'which one, where the pod has several')
    .option('-f, --follow', 'go on as it writes')
    .option('-n, --tail <lines>', 'only so many lines from the end', 'all')
    .option('--since <time>', 'only what is newer: 10m, or a time as 2026-01-31T12:00:00Z')
    .option('-t, --timestamps', 'with the time of each line')
    .action((pod, options) =>
      session.use(async (client) => (await import('./logs.ts')).logs(client, pod, options)),
    );
}

/** `ps` and what is done with pods: below `pod`, and for short without it. */
export function addPodCommands(parent: Command, session: Session): void {
  const pods = (name: string, description: string) =>
    parent.command(name).description(description).argument('<pod...>');
  const load = () => import('./pods.ts');
  pods('start', 'start pods that were created, or have ended: in a new virtual machine')
    .option('--force', force)
    .action((names, options) =>
      session.use(async (client) => (await load()).start(client, names, options)),
    );
  pods('stop', 'end pods; their states and logs stay')
    .option('-t, --time <seconds>', 'how long containers have to end by themselves', '10')
    .option('--force', force)
    .action((names, options) =>
      session.use(async (client) => (await load()).stop(client, names, options)),
    );
  pods('kill', 'signal the containers of pods')
    .option('-s, --signal <signal>', 'a name or a number', 'KILL')
    .option('-c, --container <name>', 'only this one')
    .option('--force', force)
    .action((names, options) =>
      session.use(async (client) => (await load()).kill(client, names, options)),
    );
  pods('pause', 'hold the virtual machines of pods')
    .option('--force', force)
    .action((names, options) =>
      session.use(async (client) => (await load()).pause(client, names, options)),
    );
  pods('unpause', 'let virtual machines go on that are held')
    .option('--force', force)
    .action((names, options) =>
      session.use(async (client) => (await load()).unpause(client, names, options)),
    );
  pods('update', 'give pods that run more or less, within what their virtual machines have')
    .option('-m, --memory <size>', 'such as 512m or 1g')
    .option('--cpus <count>', 'such as 0.5 or 2')
    .option('-c, --container <name>', 'which one, where the pod has several')
    .option('--force', force)
    .action((names, options) =>
      session.use(async (client) => (await load()).update(client, names, options)),
    );
  parent
    .command('rm')
    .description('remove pods that have ended, with everything of theirs')
    .argument('[pod...]')
    .option('-a, --all', "all but Kubernetes' own")
    .option('-f, --force', `pods that run too, and ${force}`)
    .action((names, options) =>
      session.use(async (client) => (await load()).remove(client, names, options)),
    );
  pods('wait', 'wait until pods have ended, and print their exit codes').action((names) =>
    session.use(async (client) => (await load()).wait(client, names)),
  );
  withFormat(
    parent
      .command('stats')
      .description('what pods use')
      .argument('[pod...]', 'all that run, where none is named')
      .option('--no-stream', 'once, and not again and again'),
  ).action((names, options) =>
    session.use(async (client) => (await load()).stats(client, names, options)),
  );
}

export function addPodGroup(program: Command, session: Session): void {
  const group = program.command('pod').description('pods: create them from a file, and all below');
  const load = () => import('./pods.ts');
  group
    .command('create')
    .description('make a pod from a file: a Kubernetes v1 Pod, YAML or JSON ("-": standard input)')
    .argument('<file>')
    .option('--start', 'start it, and wait until its containers run')
    .addOption(pullPolicy())
    .action((file, options) =>
      session.useOrStart(async (client) =>
        (await import('./run.ts')).createFromFile(client, file, options),
      ),
    );
  withFormat(
    group
      .command('ls')
      .description('all pods, also those that have ended')
      .option('-q, --quiet', 'ids'),
  ).action((options) =>
    session.use(async (client) => (await load()).list(client, { ...options, all: true })),
  );
  group
    .command('info')
    .description('everything about pods, as JSON')
    .argument('<pod...>')
    .action((names) => session.use(async (client) => (await load()).inspect(client, names)));
  addPodCommands(group, session);
}

export function addListCommands(program: Command, session: Session): void {
  const load = () => import('./pods.ts');
  withFormat(
    program
      .command('ps')
      .description('pods that run')
      .option('-a, --all', 'also those that do not')
      .option('-q, --quiet', 'ids alone'),
  ).action((options) => session.use(async (client) => (await load()).list(client, options)));
  withFormat(
    program
      .command('port')
      .description('which ports of this machine lead into a pod')
      .argument('<pod>'),
  ).action((pod, options) =>
    session.use(async (client) => (await load()).ports(client, pod, options)),
  );
}

export function addImageCommands(program: Command, session: Session): void {
  const group = program.command('image').description('images of this machine');
  const load = () => import('./images.ts');
  const authfile = new Option('--authfile <file>', 'credentials (default ~/.docker/config.json)');
  group
    .command('pull')
    .description('get an image from its registry')
    .argument('<image>')
    .addOption(authfile)
    .action((image, options) =>
      session.useOrStart(async (client) => (await load()).pullImage(client, image, options)),
    );
  group
    .command('push')
    .description('send an image to its registry')
    .argument('<reference>', 'where it goes: registry/name:tag')
    .option('--image <image>', 'which one, where it has another name here')
    .addOption(authfile)
    .action((reference, options) =>
      session.use(async (client) => (await load()).pushImage(client, reference, options)),
    );
  group
    .command('load')
    .description('take images from an archive: of OCI layout, or as "docker save" writes it')
    .argument('[file]', 'the standard input, where none is named')
    .addOption(repeatable('--name <reference>', 'what its image is called here'))
    .action((file, options) =>
      session.useOrStart(async (client) => (await load()).loadImages(client, file, options)),
    );
  group
    .command('save')
    .description('write images as an archive of OCI layout, which docker takes too')
    .argument('<image...>')
    .option('-o, --output <file>', 'the standard output, where none is named')
    .action((names, options) =>
      session.use(async (client) => (await load()).saveImages(client, names, options)),
    );
  withFormat(group.command('ls').description('all images')).action((options) =>
    session.use(async (client) => (await load()).listImages(client, options)),
  );
  group
    .command('rm')
    .description('remove names of images, or with their ids all of them')
    .argument('<image...>')
    .action((names) => session.use(async (client) => (await load()).removeImages(client, names)));
}

export function addSystemCommands(program: Command, session: Session): void {
  const load = () => import('./system.ts');
  const list = (group: Command, what: string) => withFormat(group.command('ls').description(what));
  const kernel = program.command('kernel').description('kernels of virtual machines');
  list(kernel, 'all kernels').action((options) =>
    session.use(async (client) => (await load()).listKernels(client, options)),
  );
  const template = program
    .command('template')
    .description('virtual machines that others are made of');
  list(template, 'all templates').action((options) =>
    session.use(async (client) => (await load()).listTemplates(client, options)),
  );
  template
    .command('rm')
    .description('remove templates; the next pod of the kind makes one anew')
    .argument('<template...>')
    .action((ids) => session.use(async (client) => (await load()).removeTemplates(client, ids)));
  const pool = program.command('pool').description('virtual machines that wait for pods');
  list(pool, 'how many wait, and how many pods found one').action((options) =>
    session.use(async (client) => (await load()).listPools(client, options)),
  );
  const vm = program.command('vm').description('virtual machines');
  list(vm, 'all virtual machines').action((options) =>
    session.use(async (client) => (await load()).listVms(client, options)),
  );
  withFormat(program.command('events').description('what changes, until it is interrupted')).action(
    (options) => session.use(async (client) => (await load()).events(client, options)),
  );
  program
    .command('ping')
    .description('whether hyperd answers')
    .action(() => session.use(async (client) => (await load()).ping(client)));
  withFormat(program.command('info').description('what hyperd is and runs on')).action((options) =>
    session.use(async (client) => (await load()).info(client, options)),
  );
}
