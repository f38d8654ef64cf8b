import { Option } from 'commander';
import type { Command } from 'commander';

const json = () => new Option('--json', 'print the result as JSON');

/** Adds `kernel`: what pods of this node boot. Each command's code is loaded when it is called. */
export function addKernelCommands(program: Command, dataDir: () => string | undefined): void {
  const kernel = program.command('kernel').description('the kernels that pods on this node boot');

  kernel
    .command('list')
    .description('all of them, and which is the default')
    .addOption(json())
    .action(async (flags) => (await import('./manage.ts')).listKernels(dataDir(), flags));

  kernel
    .command('build')
    .description('build the hyper kernel: small, without modules, and quick to start')
    .option('-j, --jobs <count>', 'files to compile at the same time (default: all processors)')
    .addOption(json())
    .action(async (flags) => (await import('./build.ts')).buildHyperKernel(dataDir(), flags));

  kernel
    .command('import')
    .description('take a kernel of your own, once it has run a pod')
    .argument('<name>', '1 to 40 of [a-z0-9-]')
    .argument('<path>', 'a bzImage, a vmlinux, or a linux-image package (.deb or unpacked)')
    .option('--config <file>', 'the .config that it was built with (default: from within it)')
    .addOption(json())
    .action(async (name, path, flags) =>
      (await import('./import.ts')).importKernel(dataDir(), { name, path }, flags),
    );

  kernel
    .command('use')
    .description('make it the default, for pods that start from now on')
    .argument('<name>')
    .addOption(json())
    .action(async (name, flags) => (await import('./manage.ts')).useKernel(dataDir(), name, flags));

  kernel
    .command('remove')
    .description('forget one that no pod runs')
    .argument('<name>', 'or the id of one without a name')
    .addOption(json())
    .action(async (name, flags) =>
      (await import('./manage.ts')).removeKernel(dataDir(), name, flags),
    );
}
