import { Option } from 'commander';
import type { Command } from 'commander';
import type { Place } from './access.ts';

const withAccess = (command: Command): Command =>
  command
    .option('--kubeconfig <file>', 'whose cluster (default: where kubectl looks)')
    .option('--context <name>', 'which of its contexts')
    .option('--json', 'print the result as JSON');

const list = (value: string, before: string[] | undefined) => [...(before ?? []), value];

/** Adds `why`, `audit` and `usage`: what people may do, do, and use. */
export function addInsightCommands(program: Command, place: () => Place): void {
  withAccess(program.command('why'))
    .description('whether somebody may do something, and what decides it')
    .argument('<verb>', 'such as get, list, create or delete')
    .argument('<resource>', 'RESOURCE[.GROUP][/SUBRESOURCE], or a path such as /metrics')
    .argument('[name]')
    .requiredOption('--as <user>', 'who')
    .option('--as-group <group>', 'in which groups; may be repeated', list)
    .option('--tenant <tenant>', 'as one of its people')
    .addOption(
      new Option('--role <role>', 'in which role there').choices(['admin', 'member', 'reader']),
    )
    .option('-n, --namespace <namespace>', "where (default: the tenant's name, or default)")
    .action(async (verb, resource, name, flags) =>
      (await import('./why.ts')).why({ verb, resource, name }, flags, place()),
    );

  withAccess(program.command('audit'))
    .description('who asked what of the API: of a tenant, or for operators of the cluster')
    .argument('[tenant]', 'default: your own')
    .option('-f, --follow', 'go on as more comes')
    .option('--since <when>', 'such as 30m, 7d or 2026-01-31T12:00:00Z')
    .option('--until <when>', 'the same')
    .option('--limit <count>', 'the newest so many (default 100, or all since --since)')
    .option('--verb <verb>', 'only this verb')
    .option('--user <user>', 'only this user')
    .action(async (tenant, flags) => (await import('./audit.ts')).audit(tenant, flags, place()));

  withAccess(program.command('usage'))
    .description('what tenants have used of pods, CPU, memory and storage')
    .argument('[tenant]', 'default: your own, or for operators all')
    .option('--csv', 'print it as CSV')
    .option('--from <when>', 'such as 30d or 2026-01-31T12:00:00Z')
    .option('--to <when>', 'the same')
    .addOption(new Option('--step <step>', 'by').choices(['hour', 'day']).default('day'))
    .action(async (tenant, flags) => (await import('./usage.ts')).usage(tenant, flags, place()));
}
