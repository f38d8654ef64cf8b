import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { AuthorizationStep } from '../../../api/auth.ts';
import { seededRandom } from '../../../base/random.ts';
import type { Transport } from '../../../client/transport.ts';
import { startTenantHarness } from '../../testing/tenants.ts';
import type { TenantHarness } from '../../testing/tenants.ts';

const NAMESPACES = '/api/v1/namespaces';
const RBAC = '/apis/rbac.authorization.k8s.io/v1';
const EXPLAIN = '/apis/hypernetes.io/v1/accessexplanations';

interface Explanation {
  allowed: boolean;
  reason: string;
  missing?: string;
  clusterRoles?: string[];
  user: { username: string; groups: string[]; tenant?: string };
  steps: AuthorizationStep[];
}

interface Question {
  user?: string;
  groups?: string[];
  verb: string;
  resource?: string;
  group?: string;
  subresource?: string;
  namespace?: string;
  name?: string;
  path?: string;
}

const spec = ({ user, groups, path, verb, ...resource }: Question) => ({
  ...{ user, groups },
  ...(path ? { nonResourceAttributes: { path, verb } } : {}),
  ...(path ? {} : { resourceAttributes: { verb, ...resource } }),
});

async function ask(api: TenantHarness, question: Question, as: Transport = api.transport) {
  const answer = await api.send('POST', EXPLAIN, { spec: spec(question) }, { as });
  assert.equal(answer.code, 201, answer.text);
  return (answer.body as unknown as { status: Explanation }).status;
}

const binding = (role: string, subject: object, kind = 'ClusterRole') => ({
  metadata: { name: `to-${role}` },
  roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind, name: role },
  subjects: [{ apiGroup: 'rbac.authorization.k8s.io', ...subject }],
});

/** Two tenants; carol is bound in acme's namespace, dave over the whole cluster. */
async function cluster() {
  const api = await startTenantHarness();
  for (const name of ['acme', 'globex']) {
    await api.createTenant(name);
    for (const each of [name, `${name}-web`]) {
      await api.want('POST', NAMESPACES, { metadata: { name: each } }, { as: api.as(name) });
    }
  }
  const carol = { kind: 'User', name: 'carol' };
  await api.want('POST', `${RBAC}/namespaces/acme/rolebindings`, binding('view', carol));
  const dave = { kind: 'User', name: 'dave' };
  const secret = {
    metadata: { name: 'ops' },
    rules: [{ apiGroups: [''], resources: ['pods'], verbs: ['get'] }],
  };
  await api.want('POST', `${RBAC}/clusterroles`, secret);
  await api.want('POST', `${RBAC}/clusterrolebindings`, binding('ops', dave));
  return api;
}

const deciding = ({ steps }: Explanation) => {
  const { authorizer, decision, reason } = steps.at(-1) as AuthorizationStep;
  return `${authorizer}: ${decision}: ${reason}`;
};

test('the step that decides is told, and by which role or binding', async () => {
  await using api = await cluster();
  const pods = { verb: 'get', resource: 'pods', namespace: 'acme', name: 'web' };
  const cases: [Question, boolean, RegExp][] = [
    [
      { ...pods, user: 'bob', groups: ['tenant:acme:reader'] },
      true,
      /^tenant role: allow: allowed as reader of tenant "acme" by ClusterRole "view"$/,
    ],
    [
      { ...pods, user: 'carol' },
      true,
      /^RBAC: allow: RBAC: allowed by RoleBinding "to-view\/acme" of ClusterRole "view" to User "carol"$/,
    ],
    [
      { ...pods, verb: 'delete', user: 'carol' },
      false,
      /^RBAC: no-opinion: not granted by RoleBinding "to-view\/acme" of ClusterRole "view"/,
    ],
    [
      { ...pods, namespace: 'globex', user: 'bob', groups: ['tenant:acme:admin'] },
      false,
      /^tenant scope: deny: outside of tenant "acme": the tenant has no namespace "globex"$/,
    ],
    [
      { ...pods, namespace: 'nowhere', user: 'bob', groups: ['tenant:acme:admin'] },
      false,
      /^tenant scope: deny: outside of tenant "acme": the tenant has no namespace "nowhere"$/,
    ],
    [
      { verb: 'list', resource: 'persistentvolumes', user: 'bob', groups: ['tenant:acme:admin'] },
      false,
      /^tenant scope: deny: .*hidden from tenants/,
    ],
    [
      { verb: 'get', path: '/metrics', user: 'bob', groups: ['tenant:acme:admin'] },
      false,
      /^tenant scope: deny: .*the path is not open to tenants/,
    ],
    [
      { ...pods, user: 'root', groups: ['system:masters'] },
      true,
      /^RBAC: allow: allowed by the group "system:masters"/,
    ],
  ];
  for (const [question, allowed, why] of cases) {
    const found = await ask(api, question);
    assert.equal(found.allowed, allowed, JSON.stringify(question));
    assert.match(deciding(found), why);
    assert.equal(found.missing === undefined, allowed);
  }
  const denied = await ask(api, { ...pods, verb: 'delete', user: 'carol' });
  assert.match(denied.missing ?? '', /a binding in namespace "acme", or of the whole cluster/);
  for (const role of ['admin', 'edit', 'cluster-admin']) {
    assert.ok(denied.clusterRoles?.includes(role), String(denied.clusterRoles));
  }
  assert.ok(!denied.clusterRoles?.includes('view'));
});

test('a suspended tenant is named as the reason', async () => {
  await using api = await cluster();
  const merge = { type: 'application/merge-patch+json' };
  const suspended = { spec: { suspended: true } };
  await api.want('PATCH', '/apis/hypernetes.io/v1/tenants/acme', suspended, merge);
  const question = { verb: 'create', resource: 'pods', namespace: 'acme' };
  const found = await ask(api, { ...question, user: 'bob', groups: ['tenant:acme:admin'] });
  assert.equal(deciding(found), 'tenant scope: deny: tenant "acme" is suspended');
});

test('a tenant’s admin asks about the tenant’s own people only, and learns of nothing else', async () => {
  await using api = await cluster();
  const as = api.as('acme');
  const pods = { verb: 'get', resource: 'pods', namespace: 'acme', name: 'web' };
  const own = await ask(api, { ...pods, user: 'carol', groups: ['tenant:acme:member'] }, as);
  assert.equal(own.allowed, true);
  assert.equal(own.user.tenant, 'acme');
  const hidden = await ask(api, { ...pods, user: 'dave' }, as);
  assert.equal(hidden.reason, 'RBAC: allowed by a binding of the whole cluster');
  assert.ok(!JSON.stringify(hidden).includes('ops'), JSON.stringify(hidden));
  const denied = await ask(api, { ...pods, verb: 'delete', user: 'dave' }, as);
  assert.ok(!JSON.stringify(denied).includes('ops'), JSON.stringify(denied));
  const texts = await Promise.all(
    ['globex', 'nowhere'].map(async (namespace) =>
      JSON.stringify(await ask(api, { ...pods, namespace, user: 'carol' }, as)).replaceAll(
        namespace,
        'X',
      ),
    ),
  );
  assert.equal(texts[0], texts[1]);
  const refused: Partial<Question>[] = [
    { user: 'system:serviceaccount:globex:default' },
    { user: 'system:serviceaccount:nowhere:default' },
    { user: 'system:kube-scheduler' },
    { user: 'bob', groups: ['tenant:globex:admin'] },
    { user: 'bob', groups: ['system:masters'] },
    { user: 'bob', groups: ['hypernetes:operators'] },
    { user: 'bob', groups: ['tenant:acme-dev:admin'] },
  ];
  const messages = new Set<string>();
  for (const who of refused) {
    const answer = await api.send('POST', EXPLAIN, { spec: spec({ ...pods, ...who }) }, { as });
    assert.equal(answer.code, 403, JSON.stringify(who));
    messages.add(answer.body.message ?? '');
  }
  assert.equal(messages.size, 1);
  for (const role of ['member', 'reader'] as const) {
    const body = { spec: spec({ ...pods, user: 'carol' }) };
    const answer = await api.send('POST', EXPLAIN, body, { as: api.as('acme', role) });
    assert.equal(answer.code, 403);
  }
});

const METHODS: Record<string, string> = {
  ...{ get: 'GET', list: 'GET', create: 'POST', update: 'PUT', patch: 'PATCH' },
  ...{ delete: 'DELETE', deletecollection: 'DELETE' },
};

function pathOf({ path, group = '', resource = '', namespace, name, subresource }: Question) {
  if (path) return path;
  const parts = [
    ...(group ? ['/apis', group, 'v1'] : ['/api', 'v1']),
    ...(namespace ? ['namespaces', namespace] : []),
    ...[resource, name, subresource].filter(Boolean),
  ];
  return `${parts.join('/')}?dryRun=All`;
}

test('for whatever is asked, the answer is the one that the request gets', async (t) => {
  await using api = await cluster();
  const random = seededRandom(7);
  const pick = <T>(...from: T[]): T => from[Math.floor(random.next() * from.length)] as T;
  const counts = { allowed: 0, denied: 0 };
  for (let i = 0; i < 1500; i += 1) {
    const who = pick<Pick<Question, 'user' | 'groups'>>(
      { user: 'carol' },
      { user: 'dave' },
      {
        user: 'bob',
        groups: [`tenant:${pick('acme', 'globex')}:${pick('admin', 'member', 'reader')}`],
      },
      { user: 'erin', groups: ['tenant:acme', 'tenant:acme:reader', 'hypernetes:operators'] },
      { user: `system:serviceaccount:${pick('acme', 'globex', 'default')}:default` },
      {
        user: 'op',
        groups: [pick('hypernetes:operators', 'hypernetes:operator-readers', 'system:masters')],
      },
      { user: 'system:kube-scheduler' },
      { user: 'system:anonymous' },
    );
    const verb = pick('get', 'list', 'create', 'update', 'patch', 'delete', 'deletecollection');
    const isNamed = !['list', 'create', 'deletecollection'].includes(verb);
    const [group, resource, isNamespaced] = pick<[string, string, boolean]>(
      ...([
        ['', 'pods', true],
        ['', 'secrets', true],
        ['apps', 'deployments', true],
      ] as [string, string, boolean][]),
      ...([
        ['', 'nodes', false],
        ['', 'namespaces', false],
      ] as [string, string, boolean][]),
      ...([
        ['hypernetes.io', 'tenants', false],
        ['storage.k8s.io', 'storageclasses', false],
      ] as [string, string, boolean][]),
      ['rbac.authorization.k8s.io', 'clusterroles', false],
    );
    const isPath = random.next() < 0.1;
    const isCollection = verb === 'list' || random.next() < 0.2;
    const question: Question = isPath
      ? { ...who, verb: 'get', path: pick('/metrics', '/version', '/apis', '/hypernetes/audit') }
      : {
          ...{ ...who, verb, group, resource },
          ...(isNamespaced && !(isCollection && !isNamed)
            ? { namespace: pick('acme', 'acme-web', 'globex', 'default', 'nowhere') }
            : {}),
          ...(isNamed ? { name: pick('acme', 'globex', 'web', 'view') } : {}),
        };
    const headers = {
      'impersonate-user': who.user ?? '',
      ...(who.groups ? { 'impersonate-group': who.groups.join(',') } : {}),
    };
    // A request about a namespace is in it, for who decides.
    const isNamespace = question.resource === 'namespaces' && question.name;
    const asked = isNamespace ? { ...question, namespace: question.name } : question;
    const { allowed, steps } = await ask(api, asked);
    const sent = await api.send(METHODS[question.verb] ?? 'GET', pathOf(question), undefined, {
      headers,
    });
    const isRefused =
      sent.code === 403 &&
      /(?:^|: )(?:forbidden: )?User ".*" cannot /.test(sent.body.message ?? '');
    assert.equal(allowed, !isRefused, `${JSON.stringify(question)}: ${sent.code} ${sent.text}`);
    assert.equal(steps.at(-1)?.decision === 'allow', allowed);
    const review = { spec: { ...spec(asked), user: undefined, groups: undefined } };
    const path = '/apis/authorization.k8s.io/v1/selfsubjectaccessreviews';
    const canI = await api.send('POST', path, review, { headers });
    if (canI.code === 201)
      assert.equal((canI.body.status as { allowed?: boolean }).allowed, allowed);
    counts[allowed ? 'allowed' : 'denied'] += 1;
  }
  t.diagnostic(JSON.stringify(counts));
  assert.ok(Math.min(counts.allowed, counts.denied) > 200);
});
