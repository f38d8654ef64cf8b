import type { Authenticator } from '../../api/auth.ts';
import { productTable } from '../../api/schema/own-kinds.ts';
import { isNamespacedIn } from '../../api/schema/table.ts';
import type { ApiServerOptions } from '../../apiserver/server.ts';
import { createProjectTenants } from '../../apiserver/tenancy/auto-create.ts';
import { createTenantDirectory } from '../../apiserver/tenancy/directory.ts';
import {
  createBootstrapAuthenticator,
  createCertificateAuthenticator,
  createServiceAccountAuthenticator,
} from '../../auth/authenticators.ts';
import { createIdentityAuthenticator } from '../../auth/identity-authenticator.ts';
import { createNodeAuthorizer } from '../../auth/node-authorizer.ts';
import type { Pki } from '../../auth/pki.ts';
import { createRbac, createUnionAuthorizer } from '../../auth/rbac.ts';
import { createServiceAccountTokens } from '../../auth/service-account-tokens.ts';
import { withTenantRoles } from '../../auth/tenant-roles.ts';
import { createTenantScope } from '../../auth/tenant-scope.ts';
import type { Clock } from '../../base/clock.ts';
import type { Log } from '../../base/log.ts';
import type { Random } from '../../base/random.ts';
import type { Client } from '../../client/client.ts';
import type { IdentityProvider } from '../../api/identity.ts';
import type { Store } from '../../store/store.ts';
import type { MachineConfig } from '../config.ts';

export interface AccessOptions {
  config: MachineConfig;
  pki: Pki;
  store: Store;
  provider: IdentityProvider;
  /** Acts as the API server itself, once there is one. */
  self: () => Client | undefined;
  clock: Clock;
  random: Random;
  log: Log;
}

/** The parts of a server that decide who asks, and what they may. */
export type Access = Required<
  Pick<
    ApiServerOptions,
    'authenticators' | 'authorizer' | 'schema' | 'tenants' | 'rbac' | 'nodeAuthorizer' | 'tokens'
  >
>;

/** Who asks is told by certificates and tokens; the boundary of tenants is asked before all else. */
export function createAccess(options: AccessOptions): Access {
  const { config, pki, store, provider, self, clock, random, log } = options;
  const lookup = (resource: string, namespace: string, name: string) =>
    store.get({ resource, namespace, name })?.object;
  const tokens = createServiceAccountTokens({
    privateKey: pki.serviceAccountKey,
    lookup: (resource, namespace, name) => lookup(resource, namespace, name)?.metadata,
    clock,
    random,
  });
  const schema = productTable();
  const tenants = createTenantDirectory(store);
  const scope = createTenantScope({
    tenantOfNamespace: tenants.ofNamespace,
    isWithin: tenants.isWithin,
    isSuspended: tenants.isSuspended,
    isNamespaced: isNamespacedIn(schema),
    nodes: config.tenantNodes,
  });
  const rbac = withTenantRoles(createRbac());
  const nodeAuthorizer = createNodeAuthorizer();
  const authenticators: Authenticator[] = [
    createCertificateAuthenticator(),
    createServiceAccountAuthenticator(tokens, tenants.ofNamespace),
    createIdentityAuthenticator({
      provider,
      tenantOfProject: createProjectTenants({
        ...{ tenants, log },
        client: () => (config.keystone?.createsTenants ? self() : undefined),
      }),
    }),
    createBootstrapAuthenticator((...key) => lookup('secrets', ...key), clock),
  ];
  const authorizer = createUnionAuthorizer([scope, nodeAuthorizer, rbac]);
  return { authenticators, authorizer, schema, tenants, rbac, nodeAuthorizer, tokens };
}
