import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { IdentityProject } from '../../api/identity.ts';
import type { KubeObject } from '../../api/object.ts';
import type { Tenant } from '../../api/tenancy.ts';
import { silentLog } from '../../base/log.ts';
import { createClient } from '../../client/client.ts';
import { startTenantHarness } from '../testing/tenants.ts';
import { createProjectTenants } from './auto-create.ts';
import { createTenantDirectory } from './directory.ts';

const TENANTS = '/apis/hypernetes.io/v1/tenants';
const DEFAULT = { id: 'default', name: 'Default' };

function project(id: string, name: string, more: Partial<IdentityProject> = {}): IdentityProject {
  return { id, name, domain: DEFAULT, description: '', enabled: true, ...more };
}

async function start(isOn = true) {
  const api = await startTenantHarness();
  const client = createClient(api.transport, { userAgent: 'test' });
  const tenantOf = createProjectTenants({
    tenants: api.tenants,
    client: () => (isOn ? client : undefined),
    log: silentLog,
  });
  return { api, tenantOf };
}

test('a project gets one tenant, however many ask at once', async () => {
  const { api, tenantOf } = await start();
  await using _ = api;
  const acme = project('p1', 'Acmé Corp.');
  const names = await Promise.all(Array.from({ length: 20 }, () => tenantOf(acme)));
  assert.deepEqual([...new Set(names)], ['acme-corp']);
  const { spec, status } = await api.want<Tenant>('GET', `${TENANTS}/acme-corp`);
  assert.equal(spec.displayName, 'Acmé Corp.');
  assert.deepEqual([spec.projectID, status?.projectID], ['p1', 'p1']);
  assert.equal(await tenantOf({ ...acme, name: 'renamed' }), 'acme-corp');
});

test("names are valid, of their domain, and nobody else's", async () => {
  const { api, tenantOf } = await start();
  await using _ = api;
  assert.equal(await tenantOf(project('1a', 'acme')), 'acme');
  // Its namespaces would be called as acme's may be.
  assert.equal(await tenantOf(project('2b', 'acme-web')), 'acmeweb');
  assert.equal(await tenantOf(project('3c', 'acme-WEB')), 'acmeweb3c');
  const corp = { id: 'd1', name: 'corp' };
  assert.equal(await tenantOf(project('4d', 'acme', { domain: corp })), 'corp-acme');
  assert.equal(await tenantOf(project('5e', 'kube-system')), 'kubesystem');
  assert.equal(await tenantOf(project('6f', '漢字')), 'p6f');
  assert.equal(await tenantOf(project('7a', 'default')), 'default7a');
  const long = (await tenantOf(project('8b', 'x'.repeat(64)))) ?? '';
  assert.equal(long, 'x'.repeat(40));
});

test("a project below a tenant's becomes a sub-tenant, and has what it is given", async () => {
  const { api, tenantOf } = await start();
  await using _ = api;
  await tenantOf(project('1a', 'acme'));
  const spec = { quota: { hard: { pods: '5' } } };
  const type = 'application/merge-patch+json';
  await api.want('PATCH', `${TENANTS}/acme`, { spec }, { type });
  assert.equal(await tenantOf(project('2b', 'Dev', { parentId: '1a' })), 'acme-dev');
  const made = await api.want<Tenant & KubeObject>('GET', `${TENANTS}/acme-dev`);
  assert.equal(made.spec.parent, 'acme');
  assert.deepEqual(made.spec.quota?.hard, { pods: '0' });
});

test('where tenants are made by the operator alone, a project without one has none', async () => {
  const { api, tenantOf } = await start(false);
  await using _ = api;
  assert.equal(await tenantOf(project('1a', 'acme')), undefined);
  assert.ok(createTenantDirectory(api.store).names().length === 0);
});
