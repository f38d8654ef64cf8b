import type { HttpsTransport } from '../../client/https.ts';
import { createHttpsTransport } from '../../client/https.ts';
import { createClient } from '../../client/client.ts';
import type { Resource } from '../../client/resources.ts';
import { StatusError } from '../../api/status.ts';
import { tenantGroup } from '../../api/tenancy.ts';
import { UsageError } from '../errors.ts';

/** Who the cluster takes the bearer of some credentials for. */
export interface Reviewed {
  username: string;
  groups: string[];
  /** Absent for operators. */
  tenant?: string;
}

const SELF_SUBJECT_REVIEWS: Resource = {
  group: 'authentication.k8s.io',
  version: 'v1',
  resource: 'selfsubjectreviews',
  kind: 'SelfSubjectReview',
  namespaced: false,
};

interface Review {
  status?: { userInfo?: { username?: string; groups?: string[] } };
}

/** @throws UsageError with the server's reason, when it does not accept the token */
export async function reviewToken(
  server: string,
  caCert: string,
  token: string,
): Promise<Reviewed> {
  const transport = createHttpsTransport({ server, caCert, token });
  try {
    return await reviewSelf(transport);
  } catch (error) {
    if (!(error instanceof StatusError) || error.code !== 401) throw error;
    throw new UsageError(
      `The cluster at ${server} does not accept the login: ${error.message.replace(/^Unauthorized: /, '')}.`,
    );
  } finally {
    await transport.close();
  }
}

export async function reviewSelf(transport: HttpsTransport): Promise<Reviewed> {
  const client = createClient(transport, { userAgent: 'hypernetes' });
  const review = await client.create(SELF_SUBJECT_REVIEWS, {
    apiVersion: 'authentication.k8s.io/v1',
    kind: 'SelfSubjectReview',
    metadata: {},
  });
  const { username = '', groups = [] } = (review as Review).status?.userInfo ?? {};
  const prefix = tenantGroup('');
  const tenant = groups
    .filter((group) => group.startsWith(prefix))
    .map((group) => group.slice(prefix.length))
    .find((name) => !name.includes(':'));
  return { username, groups, ...(tenant && { tenant }) };
}
