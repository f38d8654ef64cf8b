import type { Command } from 'commander';
import type { Place } from '../access.ts';

/** Options that every command has which speaks to the Kubernetes API. */
const withAccess = (command: Command): Command =>
  command
    .option('--kubeconfig <file>', 'whose cluster (default: where kubectl looks)')
    .option('--context <name>', 'which of its contexts')
    .option('--json', 'print the result as JSON');

const withWaiting = (command: Command): Command =>
  withAccess(command)
    .option('--wait', 'until it is done')
    .option('--timeout <duration>', 'for no longer than that', '10m');

const list = (value: string, before: string[] | undefined) => [...(before ?? []), value];

/** Adds `tenant`. Each command's code is loaded when it is called. */
export function addTenantCommands(program: Command, place: () => Place): void {
  const tenant = program.command('tenant').description('tenants: who shares the cluster');

  withWaiting(tenant.command('create'))
    .description('make a tenant, and a project of the identity service for it')
    .argument('<name>')
    .option('--display-name <text>', 'shown to people')
    .option('--parent <tenant>', 'make a sub-tenant of it; its name is PARENT-…')
    .option('--project-id <id>', 'an existing project to take')
    .option('--quota <limit>', 'such as pods=10; may be repeated', list)
    .option('--admin <user>', 'NAME or NAME@DOMAIN; may be repeated', list)
    .option('--member <user>', 'the same', list)
    .option('--reader <user>', 'the same', list)
    .action(async (name, flags) =>
      (await import('./create.ts')).createTenant(name, flags, place()),
    );

  withAccess(tenant.command('list'))
    .description('all that you may see')
    .action(async (flags) => (await import('./show.ts')).listTenants(flags, place()));

  withAccess(tenant.command('show'))
    .description('one, with its conditions and quota')
    .argument('<name>')
    .action(async (name, flags) => (await import('./show.ts')).showTenant(name, flags, place()));

  addUse(tenant);

  withWaiting(tenant.command('suspend'))
    .description('stop everything of it; nothing is lost')
    .argument('<name>')
    .action(async (name, flags) =>
      (await import('./change.ts')).suspendTenant(name, true, flags, place()),
    );

  withWaiting(tenant.command('resume'))
    .description('let it go on')
    .argument('<name>')
    .action(async (name, flags) =>
      (await import('./change.ts')).suspendTenant(name, false, flags, place()),
    );

  withWaiting(tenant.command('delete'))
    .description('destroy it, and everything that it owns')
    .argument('<name>')
    .option('--yes', 'do not ask')
    .action(async (name, flags) =>
      (await import('./change.ts')).deleteTenant(name, flags, place()),
    );

  withAccess(tenant.command('members'))
    .description('who belongs to it; add and remove people')
    .argument('<name>')
    .option('--add <user>', 'NAME or NAME@DOMAIN; may be repeated', list)
    .option('--remove <user>', 'the same', list)
    .option('--role <role>', 'of those who are added: admin, member or reader', 'member')
    .option('--group', 'they are groups')
    .action(async (name, flags) =>
      (await import('./member.ts')).tenantMembers(name, flags, place()),
    );
}

function addUse(tenant: Command): void {
  tenant
    .command('use')
    .description('go on in another tenant, as the same person')
    .argument('<name>')
    .option('--kubeconfig <file>', 'where the login is (default: where kubectl looks)')
    .option('--context <name>', 'what to call it (default TENANT@ADDRESS)')
    .option('--namespace <name>', 'what kubectl works in (default: that of the tenant)')
    .option('--json', 'print the result as JSON')
    .action(async (name, flags) => (await import('./use.ts')).useTenant(name, flags));
}

/** Adds `quota`. */
export function addQuotaCommands(program: Command, place: () => Place): void {
  const quota = program.command('quota').description('what a tenant may have, and has');

  withAccess(quota.command('show'))
    .description('of a tenant, or of your own')
    .argument('[tenant]')
    .action(async (name, flags) => (await import('./quota.ts')).showQuota(name, flags, place()));

  withAccess(quota.command('set'))
    .description('limit it: pods=10 requests.cpu=8; pods- lifts a limit')
    .argument('<tenant>')
    .argument('<limits...>')
    .action(async (name, words, flags) =>
      (await import('./quota.ts')).setQuota(name, words, flags, place()),
    );
}
