import { Option } from 'commander';
import type { Command } from 'commander';
import type { Place } from '../access.ts';

/** Adds what people type to log in and out. Each command's code is loaded when it is called. */
export function addLoginCommands(program: Command, place: () => Place): void {
  program
    .command('login')
    .description('log in with Keystone, so that kubectl is you')
    .option('--server <url>', 'https://ADDRESS:6443 of the cluster')
    .option('--ca <file>', "the cluster's CA, PEM")
    .option('--ca-fingerprint <sha256:…>', 'what to know the CA by, instead of being asked')
    .option('--auth-url <url>', "Keystone's, where it is not the cluster's own")
    .option('--auth-ca <file>', "CA of that Keystone's certificate, PEM")
    .option('--user <name>', 'who')
    .option('--domain <name>', 'domain of the user (default Default)')
    .option('--tenant <name>', 'what for; asked for where there is a choice')
    .option('--project <name or id>', 'the same, in the words of Keystone')
    .option('--system', 'for the whole system, as an operator')
    .option('--password-file <file>', 'where the password is, instead of being asked')
    .option('--password-stdin', 'read the password from standard input')
    .option('--token-file <file>', 'log in with a token')
    .option('--application-credential-id <id>', 'log in with an application credential')
    .option('--application-credential-secret-file <file>', 'where its secret is')
    .option('--openrc <file>', 'take all that from a file of OS_… variables (default: from OS_…)')
    .option('--remember [duration]', 'renew the login by itself, for 30d or as long as is said')
    .option('--kubeconfig <file>', 'where to write it (default: where kubectl looks)')
    .option('--context <name>', 'what to call it (default TENANT@ADDRESS)')
    .option('--namespace <name>', 'what kubectl works in (default: that of the tenant)')
    .addOption(
      new Option(
        '--exec-version <version>',
        'v1beta1 for a kubectl before 1.22 (default v1)',
      ).choices(['v1', 'v1beta1']),
    )
    .option('--json', 'print who is logged in as JSON')
    .action(async (options) => (await import('./login.ts')).login(options));

  program
    .command('logout')
    .description('end the login: tokens and credentials are revoked, what login wrote is removed')
    .option('--context <name>', 'which (default: the current one)')
    .option('--all', 'every login of this account on this machine')
    .option('--kubeconfig <file>', 'where the current context is looked up')
    .option('--password-file <file>', 'where the password is, if it is needed to revoke')
    .option('--password-stdin', 'read that password from standard input')
    .option('--json', 'print what was ended as JSON')
    .action(async (options) => (await import('./logout.ts')).logout(options));

  program
    .command('whoami')
    .description('who the cluster takes you for')
    .option('--kubeconfig <file>', 'whose cluster (default: where kubectl looks)')
    .option('--context <name>', 'which of its contexts')
    .option('--json', 'print it as JSON')
    .action(async (options) => (await import('./whoami.ts')).whoami(options, place()));

  program
    .command('credential', { hidden: true })
    .description('what kubectl calls for a token')
    .requiredOption('--profile <name>', 'which login')
    .action(async ({ profile }) => (await import('./credential-command.ts')).credential(profile));
}
