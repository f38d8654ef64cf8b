import { certificateSha256 } from '../../auth/x509.ts';
import { withCluster } from '../access.ts';
import type { AccessFlags, Cluster, Place } from '../access.ts';
import { describe, print } from '../output.ts';
import { openProfiles } from './profiles.ts';
import { withKeystone } from './renew.ts';
import { reviewSelf } from './reviewed.ts';
import { formatFingerprint } from './server-ca.ts';

/** Asks the cluster, and for logins the identity service, who this is: nothing is believed. */
export async function whoami(flags: AccessFlags, place: Place): Promise<void> {
  await withCluster(flags, place, async (cluster) => {
    const { username, groups, tenant } = await reviewSelf(cluster.transport);
    const { server, caCert, profile } = cluster;
    const token = await tokenOf(cluster);
    const remembered = profile?.credential?.expiresAtMs;
    const result = {
      ...{ user: username, userId: profile?.user.id, domain: profile?.user.domain, tenant },
      scope: token ? (tenant ? 'tenant' : 'system') : undefined,
      ...{ roles: token?.roles, groups, tokenExpiresAt: token?.expiresAt },
      rememberedUntil: remembered === undefined ? undefined : new Date(remembered).toISOString(),
      ...{ server, caFingerprint: formatFingerprint(certificateSha256(caCert)) },
      context: profile?.kubeconfig.context,
    };
    print(flags.json, result, () =>
      describe({
        User: username,
        Tenant: tenant ?? 'none',
        Roles: result.roles?.join(', '),
        Groups: result.roles ? undefined : groups.join(', '),
        'Token expires': result.tokenExpiresAt,
        'Renewed until': result.rememberedUntil,
        Server: server,
        'CA fingerprint': result.caFingerprint,
        Context: result.context,
      }),
    );
  });
}

async function tokenOf({ profile }: Cluster) {
  const stored = profile && (await openProfiles().readToken(profile));
  if (!stored) return undefined;
  const { roles } = await withKeystone(profile, (keystone) => keystone.inspect(stored.value));
  return { roles, expiresAt: new Date(stored.expiresAtMs).toISOString() };
}
