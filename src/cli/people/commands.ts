import type { Command } from 'commander';
import type { Place } from '../access.ts';

/** Options that every command has which speaks to the identity service. */
const withAccess = (command: Command): Command =>
  command
    .option('--openrc <file>', 'as whom: a file of OS_… variables (default: who is logged in)')
    .option('--kubeconfig <file>', 'where the login is looked up')
    .option('--context <name>', 'which of its contexts')
    .option('--json', 'print the result as JSON');

const withUser = (command: Command): Command =>
  withAccess(command).option('--domain <name>', 'domain of the user (default Default)');

const withPassword = (command: Command): Command =>
  withUser(command)
    .option('--password-file <file>', 'where the new password is, instead of being asked')
    .option('--password-stdin', 'read it from standard input');

const withRole = (command: Command): Command =>
  withUser(command)
    .option('--user <name>', 'whose')
    .option('--group <name>', 'whose')
    .option('--tenant <name>', 'on the project of a tenant')
    .option('--project <name>', 'on a project')
    .option('--project-domain <name>', 'where there are several of that name')
    .option('--system', 'on the whole system');

/** Adds `user` and `role`, which speak Keystone, the embedded or a real one. */
export function addPeopleCommands(program: Command, place: () => Place): void {
  const user = program.command('user').description('people of the identity service');

  withPassword(user.command('create'))
    .description('make a user')
    .argument('<name>')
    .option('--email <address>', 'shown to operators')
    .option('--description <text>', 'the same')
    .action(async (name, flags) => (await import('./user.ts')).createUser(name, flags, place()));

  withUser(user.command('list'))
    .description('all that you may see')
    .action(async (flags) => (await import('./user.ts')).listUsers(flags, place()));

  withUser(user.command('show'))
    .description('one')
    .argument('<name>')
    .action(async (name, flags) => (await import('./user.ts')).showUser(name, flags, place()));

  withPassword(user.command('set-password'))
    .description("somebody's, or without a name your own")
    .argument('[name]')
    .option('--current-password-file <file>', 'where your present one is, instead of being asked')
    .action(async (name, flags) => (await import('./user.ts')).setPassword(name, flags, place()));

  for (const [verb, enabled] of [
    ['enable', true],
    ['disable', false],
  ] as const) {
    withUser(user.command(verb))
      .description(enabled ? 'let them log in again' : 'refuse them; their tokens end')
      .argument('<name>')
      .action(async (name, flags) =>
        (await import('./user.ts')).enableUser(name, enabled, flags, place()),
      );
  }

  withUser(user.command('delete'))
    .description('for good, with all their roles')
    .argument('<name>')
    .option('--yes', 'do not ask')
    .action(async (name, flags) => (await import('./user.ts')).deleteUser(name, flags, place()));

  const role = program.command('role').description('who may do what where');

  for (const [verb, method] of [
    ['grant', 'PUT'],
    ['revoke', 'DELETE'],
  ] as const) {
    withRole(role.command(verb))
      .description(method === 'PUT' ? 'give a role' : 'take a role')
      .argument('<role>', 'admin, member, reader, or another of the identity service')
      .action(async (name, flags) =>
        (await import('./role.ts')).changeRole(method, name, flags, place()),
      );
  }

  withRole(role.command('list'))
    .description('what was given')
    .action(async (flags) => (await import('./role.ts')).listRoles(flags, place()));
}
