import { productTable } from '../api/schema/own-kinds.ts';
import type { ResourceRow } from '../api/schema/schema.ts';
import { TENANT_ROLES, tenantGroup, tenantRoleGroup } from '../api/tenancy.ts';
import type { TenantRole } from '../api/tenancy.ts';
import type { Resource } from '../client/resources.ts';
import { withCluster } from './access.ts';
import type { AccessFlags, Place } from './access.ts';
import { UsageError } from './errors.ts';
import { reviewSelf } from './login/reviewed.ts';
import { print } from './output.ts';
import { plain } from './read.ts';
import { table } from './table.ts';

interface Question {
  verb: string;
  resource: string;
  name?: string;
}

interface WhyFlags extends AccessFlags {
  as: string;
  asGroup?: string[];
  tenant?: string;
  role?: TenantRole;
  namespace?: string;
}

interface Explanation {
  allowed: boolean;
  missing?: string;
  user: { username: string; tenant?: string };
  steps: { authorizer: string; decision: string; reason: string }[];
}

/** Exit code 1 where it is not allowed, as `kubectl auth can-i` has it. */
export async function why(question: Question, flags: WhyFlags, place: Place): Promise<void> {
  const { tenant, role } = flags;
  if (role && !tenant) throw new UsageError('Cannot use --role without --tenant.');
  await withCluster(flags, place, async ({ client, transport }) => {
    const own = tenant ?? (flags.namespace ? undefined : (await reviewSelf(transport)).tenant);
    const attributes = attributesOf(question, flags.namespace ?? own ?? 'default');
    const groups = [...(flags.asGroup ?? []), ...(tenant ? groupsIn(tenant, role) : [])];
    const answer = await client.create(EXPLANATIONS, {
      apiVersion: 'hypernetes.io/v1',
      kind: 'AccessExplanation',
      metadata: {},
      spec: { user: flags.as, groups, ...attributes },
    });
    const explanation = answer.status as unknown as Explanation;
    print(flags.json, explanation, () => textOf(explanation, question, attributes));
    if (!explanation.allowed) process.exitCode = 1;
  });
}

const EXPLANATIONS: Resource = {
  ...{ group: 'hypernetes.io', version: 'v1', resource: 'accessexplanations' },
  ...{ kind: 'AccessExplanation', namespaced: false },
};

/** A role includes those below it. */
function groupsIn(tenant: string, role: TenantRole | undefined): string[] {
  const roles = role ? TENANT_ROLES.slice(TENANT_ROLES.indexOf(role)) : [];
  return [tenantGroup(tenant), ...roles.map((each) => tenantRoleGroup(tenant, each))];
}

interface Attributes {
  resourceAttributes?: Record<string, string>;
  nonResourceAttributes?: { path: string; verb: string };
}

/** @throws UsageError for a resource that there is not */
export function attributesOf({ verb, resource, name }: Question, namespace: string): Attributes {
  if (resource.startsWith('/')) return { nonResourceAttributes: { path: resource, verb } };
  const [full = '', subresource = ''] = resource.split('/', 2);
  const dot = full.indexOf('.');
  const word = (dot < 0 ? full : full.slice(0, dot)).toLowerCase();
  const group = dot < 0 ? undefined : full.slice(dot + 1);
  const row = findRow(word, group);
  if (!row && group === undefined) {
    throw new UsageError(
      `Cannot ask about "${plain(resource)}": there is no such resource. Name its group as well, ` +
        'as in widgets.example.org, if it is of a custom kind.',
    );
  }
  // Namespaces are in themselves, so far as rights go.
  const isNamespace = row?.resource === 'namespaces' && row.group === '';
  const where = isNamespace ? (name ?? '') : row && !row.namespaced ? '' : namespace;
  return {
    resourceAttributes: {
      ...{ verb, group: row?.group ?? group ?? '', resource: row?.resource ?? word, subresource },
      ...{ version: row?.version ?? '*', namespace: where, name: name ?? '' },
    },
  };
}

function findRow(word: string, group: string | undefined): ResourceRow | undefined {
  const isNamed = (row: ResourceRow) =>
    [row.resource, row.singular, row.kind.toLowerCase(), ...row.shortNames].includes(word);
  const rows = productTable().rows().filter(isNamed);
  return rows.find((row) => (group === undefined ? true : row.group === group));
}

function textOf(
  { allowed, missing, user, steps }: Explanation,
  { verb, name }: Question,
  { resourceAttributes: target, nonResourceAttributes: path }: Attributes,
): string {
  const what = target
    ? [
        [target.resource, target.group].filter(Boolean).join('.') +
          (target.subresource ? `/${target.subresource}` : ''),
        ...(name ? [name] : []),
        target.namespace ? `in namespace ${target.namespace}` : 'outside of namespaces',
      ].join(' ')
    : (path?.path ?? '');
  const who = user.tenant ? `${user.username} (tenant ${user.tenant})` : user.username;
  const head = `${allowed ? 'yes' : 'no'}: ${who} ${allowed ? 'may' : 'may not'} ${verb} ${what}`;
  const rows = steps.map(({ authorizer, decision, reason }) => [
    authorizer,
    decision.replace('-', ' '),
    plain(reason),
  ]);
  const tail = missing ? `\nmissing: ${plain(missing)}\n` : '';
  return `${plain(head)}\n\n${table(['ASKED', 'SAYS', 'BECAUSE'], rows)}${tail}`;
}
