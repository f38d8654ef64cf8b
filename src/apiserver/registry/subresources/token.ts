import { rfc3339 } from '../../../base/clock.ts';
import {
  TOKEN_EXPIRATION_SECONDS_MAX,
  TOKEN_EXPIRATION_SECONDS_MIN,
} from '../../../auth/service-account-tokens.ts';
import type { TokenBinding } from '../../../auth/service-account-tokens.ts';
import type { KubeObject } from '../../../api/object.ts';
import { StatusError, conflict, invalid, notFound } from '../../../api/status.ts';
import { optionType, readObject } from '../../codec/decode.ts';
import { jsonReply } from '../../codec/reply.ts';
import type { ResourceContext } from '../../context.ts';
import type { ApiReply } from '../../server/exchange.ts';
import { requireEntry } from '../get.ts';
import { checkIdentity } from '../metadata.ts';
import { podSpec } from '../strategies/pod.ts';
import { admissionRequest } from '../write.ts';

interface TokenRequestSpec {
  audiences?: string[];
  expirationSeconds?: number;
  boundObjectRef?: { kind?: string; apiVersion?: string; name?: string; uid?: string };
}

const DEFAULT_SECONDS = 3600;

/** POST of `serviceaccounts/{name}/token`. */
export async function handleToken(context: ResourceContext): Promise<ApiReply> {
  const { server, info } = context;
  if (!server.tokens) {
    throw new StatusError('NotFound', 'this server issues no service account tokens');
  }
  const expected = optionType(server.schema, 'authentication.k8s.io', 'v1', 'TokenRequest');
  const request = await readObject(context, expected);
  checkIdentity(request, info.namespace, info.name);
  await server.store.barrier();
  const account = requireEntry(context).object;
  checkAccount(request, account);
  const about = { context, row: context.row, namespace: info.namespace, name: info.name };
  const target = { ...about, subresource: 'token', dryRun: false };
  server.admission.validate(admissionRequest(target, 'CREATE', request, undefined));
  const spec = (request.spec ?? {}) as TokenRequestSpec;
  const expirationSeconds = checkExpiration(spec.expirationSeconds ?? DEFAULT_SECONDS);
  const audiences = spec.audiences ?? [];
  const { name = '', uid = '' } = account.metadata;
  const binding = { namespace: info.namespace, serviceAccount: { name, uid } };
  const bound = boundTo(context, spec, name);
  const issued = await server.tokens.issue({ ...binding, ...bound, audiences, expirationSeconds });
  const creationTimestamp = rfc3339(server.clock.nowMs());
  const metadata = { name, namespace: info.namespace, creationTimestamp };
  return jsonReply(201, {
    kind: 'TokenRequest',
    apiVersion: 'authentication.k8s.io/v1',
    metadata,
    spec: {
      audiences: audiences.length > 0 ? audiences : [server.tokens.issuer],
      expirationSeconds,
      boundObjectRef: spec.boundObjectRef ?? null,
    },
    status: { token: issued.token, expirationTimestamp: rfc3339(issued.expirationMs) },
  });
}

function checkAccount(request: KubeObject, account: KubeObject): void {
  const { uid } = request.metadata;
  if (!uid || uid === account.metadata.uid) return;
  const why =
    `the UID in the token request (${uid}) does not match the UID of the service account ` +
    `(${account.metadata.uid})`;
  throw conflict('', 'serviceaccounts', account.metadata.name ?? '', why);
}

function checkExpiration(seconds: number): number {
  if (seconds >= TOKEN_EXPIRATION_SECONDS_MIN && seconds <= TOKEN_EXPIRATION_SECONDS_MAX) {
    return seconds;
  }
  const bound =
    seconds < TOKEN_EXPIRATION_SECONDS_MIN
      ? 'may not specify a duration less than 10 minutes'
      : 'may not specify a duration larger than 2^32 seconds';
  const message = `Invalid value: ${seconds}: ${bound}`;
  const cause = { reason: 'FieldValueInvalid', field: 'spec.expirationSeconds', message };
  throw invalid('authentication.k8s.io', 'TokenRequest', '', [cause]);
}

const BOUND_RESOURCES: Record<string, 'pod' | 'secret' | 'node'> = {
  Pod: 'pod',
  Secret: 'secret',
  Node: 'node',
};

/** The object with which the token ends. It has to exist, and a pod has to run as the account. */
function boundTo(
  context: ResourceContext,
  spec: TokenRequestSpec,
  account: string,
): Partial<Pick<TokenBinding, 'pod' | 'secret' | 'node'>> {
  const reference = spec.boundObjectRef;
  if (!reference) return {};
  const { store } = context.server;
  const { kind = '', name = '', uid } = reference;
  const slot = Object.hasOwn(BOUND_RESOURCES, kind) ? BOUND_RESOURCES[kind] : undefined;
  // Which nodes there are, and since when, is not told to tenants.
  const isHidden = slot === 'node' && context.user.tenant !== undefined;
  if (!slot || isHidden || (reference.apiVersion && reference.apiVersion !== 'v1')) {
    const why = 'cannot bind token for object of this kind';
    const message = `Invalid value: ${JSON.stringify(kind)}: ${why}`;
    const cause = { reason: 'FieldValueInvalid', field: 'spec.boundObjectRef.kind', message };
    throw invalid('authentication.k8s.io', 'TokenRequest', '', [cause]);
  }
  const namespace = slot === 'node' ? '' : context.info.namespace;
  const found = store.get({ resource: `${slot}s`, namespace, name })?.object;
  if (!found) throw notFound('', `${slot}s`, name);
  if (uid && uid !== found.metadata.uid) {
    const why =
      `the UID in the bound object reference (${uid}) does not match the UID in record ` +
      `(${found.metadata.uid})`;
    throw conflict('', `${slot}s`, name, why);
  }
  const identity = { name, uid: found.metadata.uid ?? '' };
  if (slot !== 'pod') return { [slot]: identity };
  const { serviceAccountName } = (found.spec ?? {}) as { serviceAccountName?: string };
  if (serviceAccountName !== account) {
    const message =
      `cannot bind token for serviceaccount "${account}" to pod running with different ` +
      'serviceaccount name.';
    throw new StatusError('BadRequest', message);
  }
  const nodeName = podSpec(found).nodeName;
  const node = nodeName && store.get({ resource: 'nodes', namespace: '', name: nodeName })?.object;
  if (!node || !nodeName) return { pod: identity };
  return { pod: identity, node: { name: nodeName, uid: node.metadata.uid ?? '' } };
}
