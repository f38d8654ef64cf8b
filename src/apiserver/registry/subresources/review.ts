import { rfc3339 } from '../../../base/clock.ts';
import { AUTHENTICATED_GROUP } from '../../../auth/authenticators.ts';
import type { AuthorizationDecision, UserInfo } from '../../../api/auth.ts';
import type { KubeObject } from '../../../api/object.ts';
import { StatusError, badRequest } from '../../../api/status.ts';
import { readObject } from '../../codec/decode.ts';
import { valueReply } from '../../codec/reply.ts';
import { negotiate } from '../../codec/negotiate.ts';
import { inTenant } from '../../tenancy/named-user.ts';
import type { ResourceContext, ResourceHandler } from '../../context.ts';
import type { ApiReply } from '../../server/exchange.ts';
import { attributesFor } from './attributes.ts';
import type { AccessReviewSpec } from './attributes.ts';
import { explainAccess } from './explain.ts';

type Review = (context: ResourceContext, request: KubeObject) => unknown;

/** Reviews are questions: nothing is stored, and the answer is the request with its status. */
function answering(review: Review): ResourceHandler {
  return async (context: ResourceContext): Promise<ApiReply> => {
    const representation = negotiate(context.exchange.headers.accept);
    const request = await readObject(context, context.row);
    const status = await review(context, request);
    const creationTimestamp = rfc3339(context.server.clock.nowMs());
    const metadata = { ...request.metadata, creationTimestamp };
    return valueReply(201, { ...request, metadata, status }, representation);
  };
}

function accessStatus({ decision, reason }: AuthorizationDecision) {
  return {
    allowed: decision === 'allow',
    ...(decision === 'deny' ? { denied: true } : {}),
    ...(reason ? { reason } : {}),
  };
}

function selfAccess({ server, user }: ResourceContext, request: KubeObject) {
  const attributes = attributesFor((request.spec ?? {}) as AccessReviewSpec, user);
  return accessStatus(server.authorizer.authorize(attributes));
}

function subjectAccess({ server, user: asker }: ResourceContext, request: KubeObject) {
  const spec = (request.spec ?? {}) as AccessReviewSpec;
  const { user: name = '', uid = '', groups = [], extra = {} } = spec;
  if (!name && groups.length === 0) {
    throw badRequest('at least one of user or group must be specified');
  }
  const user = inTenant({ name, uid, groups, extra }, asker, server.tenants);
  const attributes = attributesFor(spec, user);
  return accessStatus(server.authorizer.authorize(attributes));
}

function localAccess(context: ResourceContext, request: KubeObject) {
  const { namespace } = (request.spec as AccessReviewSpec | undefined)?.resourceAttributes ?? {};
  if (namespace !== context.info.namespace) {
    throw badRequest('spec.resourceAttributes.namespace must match the namespace of the request');
  }
  return subjectAccess(context, request);
}

function selfRules({ server, user }: ResourceContext, request: KubeObject) {
  const { namespace = '' } = (request.spec ?? {}) as { namespace?: string };
  if (!namespace) throw badRequest('no namespace on request');
  if (!server.rbac) {
    const evaluationError = 'this server has no rule resolver';
    return { resourceRules: [], nonResourceRules: [], incomplete: true, evaluationError };
  }
  const isMaster = user.groups.includes('system:masters');
  const everything = [
    { verbs: ['*'], apiGroups: ['*'], resources: ['*'] },
    { verbs: ['*'], nonResourceURLs: ['*'] },
  ];
  const { rules, missing } = server.rbac.rulesFor(user, namespace);
  const all = isMaster ? [...everything, ...rules] : rules;
  return {
    resourceRules: all.filter((rule) => rule.resources?.length),
    nonResourceRules: all.filter(
      (rule) => 'nonResourceURLs' in rule && rule.nonResourceURLs?.length,
    ),
    incomplete: false,
    ...(missing.length > 0 ? { evaluationError: missing.join(', ') } : {}),
  };
}

function selfSubject({ user }: ResourceContext) {
  return { userInfo: userFields(user) };
}

function userFields(user: UserInfo) {
  return {
    username: user.name,
    ...(user.uid ? { uid: user.uid } : {}),
    ...(user.groups.length > 0 ? { groups: user.groups } : {}),
    ...(Object.keys(user.extra).length > 0 ? { extra: user.extra } : {}),
  };
}

async function tokenReview({ server }: ResourceContext, request: KubeObject) {
  const { token, audiences = [] } = (request.spec ?? {}) as {
    token?: string;
    audiences?: string[];
  };
  if (!token) throw badRequest('token is required for TokenReview in authentication');
  for (const authenticator of server.authenticators) {
    try {
      const found = await authenticator.authenticate({ bearerToken: token, audiences });
      if (!found) continue;
      const groups = [...new Set([...found.user.groups, AUTHENTICATED_GROUP])];
      const shared = found.audiences ?? [];
      return {
        authenticated: true,
        user: userFields({ ...found.user, groups }),
        ...(shared.length > 0 ? { audiences: shared } : {}),
      };
    } catch (error) {
      if (!(error instanceof StatusError)) throw error;
      return { authenticated: false, user: {}, error: error.message };
    }
  }
  return { authenticated: false, user: {} };
}

export const reviews: Record<string, ResourceHandler> = {
  'selfsubjectaccessreviews.authorization.k8s.io': answering(selfAccess),
  'subjectaccessreviews.authorization.k8s.io': answering(subjectAccess),
  'localsubjectaccessreviews.authorization.k8s.io': answering(localAccess),
  'selfsubjectrulesreviews.authorization.k8s.io': answering(selfRules),
  'selfsubjectreviews.authentication.k8s.io': answering(selfSubject),
  'accessexplanations.hypernetes.io': answering(explainAccess),
  'tokenreviews.authentication.k8s.io': answering(tokenReview),
};
