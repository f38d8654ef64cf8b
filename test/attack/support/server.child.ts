import { productTable } from '../../../src/api/schema/own-kinds.ts';
import { isNamespacedIn } from '../../../src/api/schema/table.ts';
import type { IdentityProvider } from '../../../src/api/identity.ts';
import type { KubeObject } from '../../../src/api/object.ts';
import type { Authorizer, UserInfo } from '../../../src/api/auth.ts';
import { createApiServer } from '../../../src/apiserver/server.ts';
import { createTenantDirectory } from '../../../src/apiserver/tenancy/directory.ts';
import {
  createBootstrapAuthenticator,
  createCertificateAuthenticator,
  createServiceAccountAuthenticator,
} from '../../../src/auth/authenticators.ts';
import { defaultRbacObjects } from '../../../src/auth/default-roles.ts';
import { createIdentityAuthenticator } from '../../../src/auth/identity-authenticator.ts';
import { createNodeAuthorizer } from '../../../src/auth/node-authorizer.ts';
import { createCaSigner, ensurePki } from '../../../src/auth/pki.ts';
import { createRbac, createUnionAuthorizer } from '../../../src/auth/rbac.ts';
import { createServiceAccountTokens } from '../../../src/auth/service-account-tokens.ts';
import { withTenantRoles } from '../../../src/auth/tenant-roles.ts';
import { createTenantScope, tenantPartition } from '../../../src/auth/tenant-scope.ts';
import { systemClock as clock } from '../../../src/base/clock.ts';
import { createLog } from '../../../src/base/log.ts';
import { systemRandom as random } from '../../../src/base/random.ts';
import { startControllers } from '../../../src/controllers/index.ts';
import { createIdentityApi } from '../../../src/identity/embedded/http/api.ts';
import { serveIdentityApi } from '../../../src/identity/embedded/http/serve.ts';
import { createEmbeddedProvider } from '../../../src/identity/embedded/provider.ts';
import { openEmbeddedIdentity } from '../../../src/identity/embedded/service.ts';
import { createKeystoneProvider } from '../../../src/identity/keystone/provider.ts';
import type { KeystoneCredentials } from '../../../src/identity/keystone/provider.ts';
import { openSqliteStore } from '../../../src/store/sqlite.ts';
import type { Store } from '../../../src/store/store.ts';

/**
 * A server as the product runs it, in a process of its own: what attackers do to themselves must
 * not slow it, and what they do to it must be seen. Its parent is the test.
 */
export interface ServerOrder {
  /** Where certificates and the store lie. */
  directory: string;
  /** Absent for the embedded identity service. */
  keystone?: { url: string; credentials: KeystoneCredentials };
  /** Without it everybody may do everything: that is how attempts are shown to work. */
  hasBoundary: boolean;
}

export interface ServerNews {
  port: number;
  /** Of the embedded identity service, with its version. */
  identity?: { url: string; adminPassword: string };
}

const order = JSON.parse(process.argv[2] ?? '') as ServerOrder;
const log = createLog({ component: 'attacked', level: 'error' });
const controllers: UserInfo = {
  ...{ name: 'system:kube-controller-manager', uid: '', extra: {} },
  groups: ['system:authenticated'],
};

async function identityOf(
  store: Store,
): Promise<{ provider: IdentityProvider; identity?: ServerNews['identity'] }> {
  if (order.keystone) {
    return { provider: createKeystoneProvider({ ...order.keystone, clock, random, log }) };
  }
  // As cheap as the algorithm allows: nobody attacks the hash here.
  const hashParameters = { memoryKib: 8, passes: 1, parallelism: 1 };
  const embedded = await openEmbeddedIdentity({ store, clock, random, log, hashParameters });
  const { origin, use } = await serveIdentityApi();
  const url = `${origin}/identity/v3`;
  const { adminPassword = '' } = await embedded.bootstrap({ identity: url, kubernetes: origin });
  use(createIdentityApi({ identity: embedded, log, baseUrl: url }));
  return { provider: createEmbeddedProvider(embedded), identity: { url, adminPassword } };
}

function boundary(store: Store) {
  const schema = productTable();
  const tenants = createTenantDirectory(store);
  const rbac = withTenantRoles(createRbac());
  const nodeAuthorizer = createNodeAuthorizer();
  const scope = createTenantScope({
    tenantOfNamespace: tenants.ofNamespace,
    isWithin: tenants.isWithin,
    isSuspended: tenants.isSuspended,
    isNamespaced: isNamespacedIn(schema),
    nodes: 'sanitised',
  });
  const open: Authorizer = { authorize: () => ({ decision: 'allow', reason: '' }) };
  const authorizer = order.hasBoundary
    ? createUnionAuthorizer([scope, nodeAuthorizer, rbac])
    : open;
  return { schema, tenants, rbac, nodeAuthorizer, authorizer };
}

async function serve(): Promise<ServerNews> {
  const pki = await ensurePki(order.directory, { hosts: ['127.0.0.1'], clock, random });
  const path = `${order.directory}/store.db`;
  const partitionOf = order.hasBoundary ? tenantPartition : () => '';
  const store = await openSqliteStore({ path, clock, random, log, partitionOf });
  const { provider, identity } = await identityOf(store);
  const lookup = (resource: string, namespace: string, name: string): KubeObject | undefined =>
    store.get({ resource, namespace, name })?.object;
  const tokens = createServiceAccountTokens({
    privateKey: pki.serviceAccountKey,
    lookup: (...key) => lookup(...key)?.metadata,
    ...{ clock, random },
  });
  const rules = boundary(store);
  const { tenants } = rules;
  const tenantOfProject = (project: { id: string }) =>
    Promise.resolve(tenants.ofProject(project)?.metadata.name);
  const server = await createApiServer({
    ...{ store, clock, random, log, ...rules, tokens },
    authenticators: [
      createCertificateAuthenticator(),
      createServiceAccountAuthenticator(tokens, tenants.ofNamespace),
      createIdentityAuthenticator({ provider, tenantOfProject }),
      createBootstrapAuthenticator((...key) => lookup('secrets', ...key), clock),
    ],
    kubelet: { ca: pki.caCert, cert: pki.kubeletClientCert, key: pki.kubeletClientKey },
    bootstrapObjects: defaultRbacObjects(),
  });
  const tls = { cert: pki.serverCert, key: pki.serverKey, clientCa: pki.caCert };
  const { port } = await server.listen({ host: '127.0.0.1', port: 0, tls });
  void startControllers({
    ...{ clock, random, log, signal: new AbortController().signal },
    transport: server.loopback(controllers),
    signer: createCaSigner({ caCert: pki.caCert, caKey: pki.caKey, clock, random }),
  });
  return { port, ...(identity ? { identity } : {}) };
}

// It ends with the test, however that ends; its files are the test's to remove.
process.once('disconnect', () => process.exit(0));
process.send?.(await serve());
