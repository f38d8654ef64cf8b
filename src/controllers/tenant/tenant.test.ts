import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import {
  IdentityConflictError,
  IdentityNotFoundError,
  IdentityUnavailableError,
} from '../../api/identity.ts';
import type { IdentityAssignment, IdentityProject, IdentityProvider } from '../../api/identity.ts';
import type { Tenant, TenantSpec } from '../../api/tenancy.ts';
import type { Namespace, Pod } from '../../api/types.generated.ts';
import { NAMESPACES, NODES, PODS, TENANTS } from '../../client/resources.ts';
import { startTestCluster } from '../common/testing.fake.ts';
import { runTenantController } from './index.ts';

/** An identity service with two people, and how to be one that is away. */
class FakeIdentity implements IdentityProvider {
  readonly kind = 'embedded';
  readonly projects = new Map<string, IdentityProject>();
  assignments: IdentityAssignment[] = [];
  isAway = false;
  #changed: () => void = () => {};
  #count = 0;

  recognises = () => false;
  validate = () => Promise.resolve(undefined);
  close = () => Promise.resolve();
  async listProjects() {
    this.#check();
    return [...this.projects.values()];
  }
  async getProject(id: string) {
    this.#check();
    return this.projects.get(id);
  }
  async createProject(wanted: { name: string; parentId?: string; description?: string }) {
    this.#check();
    const { name, parentId, description = '' } = wanted;
    if ([...this.projects.values()].some((one) => one.name === name)) {
      throw new IdentityConflictError(`there is a project ${name}`);
    }
    const id = `id-${(this.#count += 1)}`;
    const domain = { id: 'default', name: 'Default' };
    const place = parentId === undefined ? {} : { parentId };
    const project = { id, name, domain, description, enabled: true, ...place };
    this.projects.set(id, project);
    return project;
  }
  async updateProject(id: string, changes: Partial<IdentityProject>) {
    const project = { ...(this.projects.get(id) as IdentityProject), ...changes };
    this.projects.set(id, project);
    this.#changed();
    return project;
  }
  async deleteProject(id: string) {
    this.#check();
    this.projects.delete(id);
    this.assignments = this.assignments.filter(({ projectId }) => projectId !== id);
    this.#changed();
  }
  async listAssignments(projectId: string) {
    this.#check();
    return this.assignments.filter((one) => one.projectId === projectId);
  }
  async grant(assignment: IdentityAssignment) {
    this.#check();
    if (!['alice', 'bob'].includes(assignment.name)) throw new IdentityNotFoundError('nobody');
    this.assignments.push(assignment);
  }
  async revoke({ projectId, name, role }: IdentityAssignment) {
    this.#check();
    this.assignments = this.assignments.filter(
      (one) => one.projectId !== projectId || one.name !== name || one.role !== role,
    );
  }
  onProjectsChanged(changed: () => void) {
    this.#changed = changed;
  }
  held(projectId: string | undefined): string[] {
    const held = this.assignments.filter((one) => one.projectId === projectId);
    return held.map(({ name, role }) => `${name} ${role}`).sort();
  }
  #check() {
    if (this.isAway) throw new IdentityUnavailableError('keystone does not answer');
  }
}

function start(t: TestContext, identity: FakeIdentity | undefined = new FakeIdentity()) {
  const cluster = startTestCluster(t, [(context) => runTenantController(context, { identity })]);
  const { api, pass } = cluster;
  const put = (name: string, spec: TenantSpec = {}) => {
    const known = api.get(TENANTS, undefined, name);
    const head = { apiVersion: 'hypernetes.io/v1', kind: 'Tenant', metadata: { name } };
    return api.put(TENANTS, { ...head, ...known, spec: { ...known?.spec, ...spec } } as Tenant);
  };
  const get = (name: string) => api.get(TENANTS, undefined, name);
  const condition = (name: string, type: string) => {
    const found = get(name)?.status?.conditions?.find((one) => one.type === type);
    return found && `${found.status} ${found.reason}: ${found.message}`;
  };
  const putNamespace = (name: string, tenant: string) => {
    const metadata = { name, labels: { 'hypernetes.io/tenant': tenant } };
    const spec = { finalizers: ['kubernetes'] };
    api.put(NAMESPACES, { apiVersion: 'v1', kind: 'Namespace', metadata, spec } as Namespace);
  };
  const putPod = (namespace: string, name: string) => {
    const state = { running: { startedAt: '2026-01-01T00:00:00Z' } };
    const containerStatuses = [{ name: 'c', state }];
    const head = { apiVersion: 'v1', kind: 'Pod', metadata: { namespace, name } };
    api.put(PODS, { ...head, status: { phase: 'Running', containerStatuses } } as unknown as Pod);
  };
  return { ...cluster, api, pass, identity, put, get, condition, putNamespace, putPod };
}

test('a tenant gets a project, and its sub-tenant one below it', async (t) => {
  const { identity, put, get, condition, putNamespace, pass } = start(t);
  put('acme-dev', { parent: 'acme' });
  await pass(1000);
  assert.match(condition('acme-dev', 'Ready') ?? '', /^False ParentNotReady/);
  assert.equal(get('acme-dev')?.status?.phase, 'Pending');
  put('acme');
  putNamespace('acme', 'acme');
  putNamespace('acme-web', 'acme');
  await pass(1000);
  const { metadata, spec, status } = get('acme') as Tenant;
  const project = identity.projects.get(status?.projectID ?? '');
  assert.equal(project?.name, 'acme');
  assert.equal(project?.description, `Hypernetes tenant acme (${metadata.uid})`);
  assert.equal(spec.projectID, project?.id);
  assert.deepEqual(metadata.finalizers, ['hypernetes.io/tenant']);
  assert.equal(status?.phase, 'Active');
  assert.equal(status?.namespaceCount, 2);
  assert.equal(condition('acme', 'Ready'), 'True Ready: ');
  const below = get('acme-dev')?.status;
  assert.equal(identity.projects.get(below?.projectID ?? '')?.parentId, project?.id);
  assert.equal(identity.projects.size, 2);
});

test("a project is found, or refused where it may be a stranger's", async (t) => {
  const { identity, put, get, condition, pass } = start(t);
  const old = await identity.createProject({ name: 'acme' });
  await identity.createProject({ name: 'acme-dev' });
  put('acme');
  put('acme-dev', { parent: 'acme' });
  put('thief', { projectID: old.id });
  put('lost', { projectID: 'nothing' });
  await pass(1000);
  assert.equal(get('acme')?.status?.projectID, old.id);
  assert.match(condition('acme-dev', 'IdentitySynced') ?? '', /^False ProjectConflict/);
  assert.equal(get('acme-dev')?.status?.projectID, undefined);
  await pass(11_000);
  const [first, second] = ['acme', 'thief'].map((name) => get(name)?.status?.projectID);
  assert.ok((first === undefined) !== (second === undefined), 'one project, one tenant');
  assert.match(condition('lost', 'IdentitySynced') ?? '', /^False ProjectNotFound/);
});

test('members get their roles; others keep theirs', async (t) => {
  const { identity, put, get, condition, pass } = start(t);
  put('acme', { members: [{ kind: 'User', name: 'alice', role: 'member' }] });
  await pass(1000);
  const projectId = get('acme')?.status?.projectID ?? '';
  assert.deepEqual(identity.held(projectId), ['alice member']);
  const domain = 'Default';
  await identity.grant({ projectId, kind: 'User', name: 'bob', domain, role: 'reader' });
  const bob = { kind: 'User' as const, name: 'bob', role: 'reader' as const };
  put('acme', { members: [bob, { ...bob, name: 'nobody' }] });
  await pass(1000);
  assert.deepEqual(identity.held(projectId), ['bob reader']);
  assert.match(condition('acme', 'IdentitySynced') ?? '', /MemberNotFound: .* nobody@Default/);
  assert.equal(get('acme')?.status?.phase, 'Active');
  put('acme', { members: [] });
  await pass(1000);
  assert.deepEqual(identity.held(projectId), ['bob reader'], 'it was not given by the tenant');
  assert.match(condition('acme', 'IdentitySynced') ?? '', /^True Synced/);
});

test('suspension reaches the pods of the tenant and of those below it', async (t) => {
  const { api, identity, put, get, condition, putNamespace, putPod, pass } = start(t);
  for (const [name, spec] of [
    ['acme', {}],
    ['acme-dev', { parent: 'acme' }],
  ] as const) {
    put(name, spec);
    putNamespace(name, name);
    putPod(name, 'p');
  }
  await pass(1000);
  const marked = () =>
    ['acme', 'acme-dev'].map((namespace) =>
      Boolean(api.get(PODS, namespace, 'p')?.metadata.annotations?.['hypernetes.io/suspended']),
    );
  assert.deepEqual(marked(), [false, false]);
  put('acme', { suspended: true });
  await pass(2000);
  assert.deepEqual(marked(), [true, true]);
  assert.equal(get('acme-dev')?.status?.phase, 'Suspended');
  assert.match(
    condition('acme', 'Suspended') ?? '',
    /SuspendedBySpec: .*; 0 of 1 pods have stopped/,
  );
  assert.match(condition('acme-dev', 'Suspended') ?? '', /^True ParentSuspended: the tenant acme/);
  put('acme', { suspended: false });
  await pass(2000);
  assert.deepEqual(marked(), [false, false]);
  await identity.updateProject(get('acme-dev')?.status?.projectID ?? '', { enabled: false });
  await pass(2000);
  assert.deepEqual(marked(), [false, true]);
  assert.match(condition('acme-dev', 'Ready') ?? '', /^False ProjectDisabled/);
  await identity.updateProject(get('acme-dev')?.status?.projectID ?? '', { enabled: true });
  await pass(2000);
  assert.deepEqual(marked(), [false, false]);
  await identity.deleteProject(get('acme-dev')?.status?.projectID ?? '');
  await pass(2000);
  assert.match(condition('acme-dev', 'IdentitySynced') ?? '', /^False ProjectDeleted/);
  assert.ok(api.get(PODS, 'acme-dev', 'p'), 'nothing is destroyed');
});

test('an identity service that is away is told of, and waited for', async (t) => {
  const { identity, put, get, condition, pass } = start(t);
  put('acme');
  await pass(1000);
  const { projectID } = get('acme')?.status ?? {};
  identity.isAway = true;
  put('acme', { displayName: 'Acme' });
  put('globex');
  await pass(1000);
  assert.match(condition('acme', 'IdentitySynced') ?? '', /Unknown IdentityUnavailable: .*answer/);
  assert.equal(get('acme')?.status?.phase, 'Active');
  assert.equal(get('acme')?.status?.projectID, projectID);
  assert.equal(get('globex')?.status?.phase, 'Pending');
  identity.isAway = false;
  await pass(11_000);
  assert.match(condition('acme', 'IdentitySynced') ?? '', /^True/);
  assert.equal(get('globex')?.status?.phase, 'Active');
});

test('a disabled project stays disabled while nobody can be asked', async (t) => {
  const { identity, put, get, condition, pass } = start(t);
  put('acme');
  await pass(1000);
  const { projectID = '' } = get('acme')?.status ?? {};
  await identity.updateProject(projectID, { enabled: false });
  await pass(1000);
  identity.isAway = true;
  put('acme', { displayName: 'Acme' });
  await pass(12_000);
  assert.equal(get('acme')?.status?.phase, 'Suspended');
  assert.match(condition('acme', 'IdentitySynced') ?? '', /ProjectDisabled: .*does not answer/);
  identity.isAway = false;
  await identity.updateProject(projectID, { enabled: true });
  await pass(12_000);
  assert.equal(get('acme')?.status?.phase, 'Active');
});

test('a tenant goes in order, step by step, and with its project', async (t) => {
  const { api, identity, put, get, condition, putNamespace, putPod, pass, context } = start(t);
  put('acme', { members: [{ kind: 'User', name: 'alice', role: 'admin' }] });
  put('acme-dev', { parent: 'acme' });
  putNamespace('acme', 'acme');
  putPod('acme', 'p');
  await pass(1000);
  const remove = (name: string) => context.client.delete(TENANTS, { name });
  await remove('acme');
  await pass(3000);
  assert.match(
    condition('acme', 'SubTenantsRemaining') ?? '',
    /^True .*: 1 sub-tenants have to be deleted first: acme-dev/,
  );
  assert.ok(api.get(PODS, 'acme', 'p'));
  identity.isAway = true;
  await remove('acme-dev');
  await pass(3000);
  assert.match(condition('acme-dev', 'IdentityRemaining') ?? '', /keystone does not answer/);
  identity.isAway = false;
  await pass(3000);
  assert.equal(get('acme-dev'), undefined);
  assert.equal(api.get(PODS, 'acme', 'p'), undefined);
  assert.match(condition('acme', 'NamespacesRemaining') ?? '', /1 namespaces .*: acme/);
  assert.ok(api.get(NAMESPACES, undefined, 'acme')?.metadata.deletionTimestamp);
  assert.equal(identity.projects.size, 1);
  api.remove(NAMESPACES, undefined, 'acme');
  await pass(3000);
  assert.equal(get('acme'), undefined);
  assert.equal(identity.projects.size, 0);
  assert.deepEqual(identity.assignments, []);
});

test('a tenant stays until every node says that it has nothing of it any more', async (t) => {
  const { api, put, get, condition, pass, context } = start(t);
  const annotate = (name: string, annotations: Record<string, string>) =>
    api.put(NODES, { apiVersion: 'v1', kind: 'Node', metadata: { name, annotations } });
  const allowed = (name: string) =>
    api.get(NODES, undefined, name)?.metadata.annotations?.['allowances.hypernetes.io/acme'];
  put('acme');
  annotate('n1', { 'holdings.hypernetes.io/acme': '0', 'holdings.hypernetes.io/other': '5' });
  annotate('n2', { 'holdings.hypernetes.io/acme': '7', 'allowances.hypernetes.io/acme': '9' });
  annotate('n3', { 'allowances.hypernetes.io/acme': '9' });
  annotate('n4', { 'holdings.hypernetes.io/other': '0' });
  await pass(1000);
  await context.client.delete(TENANTS, { name: 'acme' });
  await pass(3000);
  assert.match(
    condition('acme', 'NodesRemaining') ?? '',
    /^True .*: 2 nodes still have .*: n1, n2/,
  );
  assert.match(condition('acme', 'IdentityRemaining') ?? '', /^Unknown NotYet/);
  assert.deepEqual(['n1', 'n2', 'n3', 'n4'].map(allowed), ['nothing', 'nothing', '9', undefined]);
  annotate('n1', { 'allowances.hypernetes.io/acme': 'nothing' });
  await pass(1000);
  assert.match(condition('acme', 'NodesRemaining') ?? '', /1 nodes still have .*: n2/);
  api.remove(NODES, undefined, 'n2');
  await pass(3000);
  assert.equal(get('acme'), undefined);
  assert.deepEqual(['n1', 'n3'].map(allowed), [undefined, undefined]);
});

test('a project that was there before is left, without the roles that were given', async (t) => {
  const { identity, put, get, pass, context } = start(t);
  const old = await identity.createProject({ name: 'acme' });
  put('acme', { members: [{ kind: 'User', name: 'alice', role: 'admin' }] });
  await pass(1000);
  assert.deepEqual(identity.held(old.id), ['alice admin']);
  await context.client.delete(TENANTS, { name: 'acme' });
  await pass(3000);
  assert.equal(get('acme'), undefined);
  assert.deepEqual(identity.held(old.id), []);
  assert.ok(identity.projects.has(old.id));
});

test('without an identity service tenants work with groups alone', async (t) => {
  const { api, pass, condition, put, get, complaints } = startWithout(t);
  put('acme');
  await pass(1000);
  assert.equal(get('acme')?.status?.phase, 'Active');
  assert.match(condition('acme', 'IdentitySynced') ?? '', /^Unknown NoIdentityService/);
  assert.deepEqual(complaints, []);
  assert.ok(api);
});

function startWithout(t: TestContext) {
  const cluster = startTestCluster(t, [(context) => runTenantController(context)]);
  const { api } = cluster;
  const get = (name: string) => api.get(TENANTS, undefined, name);
  return {
    ...cluster,
    get,
    put: (name: string) =>
      api.put(TENANTS, {
        ...{ apiVersion: 'hypernetes.io/v1', kind: 'Tenant', metadata: { name }, spec: {} },
      }),
    condition(name: string, type: string) {
      const found = get(name)?.status?.conditions?.find((one) => one.type === type);
      return found && `${found.status} ${found.reason}: ${found.message}`;
    },
  };
}
