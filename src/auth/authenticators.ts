import type { PeerCertificate } from 'node:tls';
import type { AuthenticationRequest, Authenticator, UserInfo } from '../api/auth.ts';
import { tenantGroup } from '../api/tenancy.ts';
import type { Clock } from '../base/clock.ts';
import { verifyBootstrapToken } from './bootstrap-tokens.ts';
import type { SecretLookup } from './bootstrap-tokens.ts';
import type { ServiceAccountTokens } from './service-account-tokens.ts';

export const AUTHENTICATED_GROUP = 'system:authenticated';
export const ANONYMOUS_USER: UserInfo = {
  name: 'system:anonymous',
  uid: '',
  groups: ['system:unauthenticated'],
  extra: {},
};

/**
 * Who a TLS peer is by its certificate. Trust it only for a socket whose `authorized` is true:
 * chain and validity are not looked at here.
 *
 * @returns undefined when there is no certificate or it names nobody unambiguously
 */
export function peerIdentity(
  certificate: Pick<PeerCertificate, 'subject'> | undefined,
): AuthenticationRequest['clientCertificate'] {
  const commonName: unknown = certificate?.subject?.CN;
  if (typeof commonName !== 'string' || !commonName) return undefined;
  const organizations: string | string[] = certificate?.subject.O ?? [];
  return { commonName, organizations: [organizations].flat() };
}

/** A client certificate: the common name is the user, organizations are the groups. */
export function createCertificateAuthenticator(): Authenticator {
  return {
    authenticate({ clientCertificate }) {
      if (!clientCertificate) return Promise.resolve(undefined);
      const { commonName, organizations } = clientCertificate;
      const groups = [...new Set([...organizations, AUTHENTICATED_GROUP])];
      return Promise.resolve({ user: { name: commonName, uid: '', groups, extra: {} } });
    },
  };
}

/**
 * Service account tokens (JWTs of our own issuer). An account belongs to the tenant of its namespace,
 * which `tenantOfNamespace` tells: '' is the cluster itself.
 */
export function createServiceAccountAuthenticator(
  tokens: ServiceAccountTokens,
  tenantOfNamespace: (namespace: string) => string | undefined = () => '',
): Authenticator {
  return {
    async authenticate({ bearerToken, audiences }) {
      if (!bearerToken) return undefined;
      const verified = await tokens.verify(bearerToken, audiences);
      if (!verified) return undefined;
      const { user, audiences: shared, namespace } = verified;
      const tenant = tenantOfNamespace(namespace);
      if (!tenant) return { user, audiences: shared };
      const groups = [...user.groups, tenantGroup(tenant)];
      return { user: { ...user, groups, tenant }, audiences: shared };
    },
  };
}

/** Bootstrap tokens (Secrets in kube-system). */
export function createBootstrapAuthenticator(lookup: SecretLookup, clock: Clock): Authenticator {
  return {
    authenticate({ bearerToken, audiences }) {
      // These tokens speak to the API server alone; a TokenReview for others must not accept them.
      if (!bearerToken || audiences?.length) return Promise.resolve(undefined);
      return Promise.resolve().then(() => {
        const user = verifyBootstrapToken(bearerToken, lookup, clock);
        return user && { user };
      });
    },
  };
}
