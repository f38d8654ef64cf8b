import type { UserInfo } from '../../api/auth.ts';
import type { KubeObject } from '../../api/object.ts';
import { parseCertificateRequest } from '../../auth/csr.ts';
import { checkEscalation } from '../../auth/escalation.ts';
import { checkNodeRestriction } from '../../auth/node-restriction.ts';
import { notFound } from '../../api/status.ts';
import { isAllowed } from '../server/authorization.ts';
import { isOfferedRole } from '../tenancy/confinement.ts';
import { forbidden } from './chain.ts';
import type { AdmissionPlugin, AdmissionRequest, Operation } from './chain.ts';

const NODE_OPERATIONS: Partial<Record<Operation, 'create' | 'update' | 'delete'>> = {
  CREATE: 'create',
  UPDATE: 'update',
  DELETE: 'delete',
};

/** A node writes about itself and its pods alone. */
export const nodeRestriction: AdmissionPlugin = {
  name: 'NodeRestriction',
  operations: ['CREATE', 'UPDATE', 'DELETE'],
  subresources: ['status', 'eviction', 'token'],
  validate(request) {
    const { operation, user, row, subresource, object, oldObject } = request;
    const about = { user, group: row.group, resource: row.resource, subresource };
    const boundPod = subresource === 'token' ? boundPodOf(request) : undefined;
    checkNodeRestriction({
      ...about,
      operation: NODE_OPERATIONS[operation] ?? 'update',
      ...(object ? { object } : {}),
      ...(oldObject ? { oldObject } : {}),
      ...(boundPod ? { boundPod } : {}),
    });
  },
};

function boundPodOf({ server, namespace, object }: AdmissionRequest): KubeObject | undefined {
  const { boundObjectRef } = (object?.spec ?? {}) as { boundObjectRef?: { name?: string } };
  const { name = '' } = boundObjectRef ?? {};
  return name ? server.store.get({ resource: 'pods', namespace, name })?.object : undefined;
}

/** Nobody hands out more than they hold. */
export const rbacEscalation: AdmissionPlugin = {
  name: 'RbacEscalation',
  resources: [
    'roles.rbac.authorization.k8s.io',
    'clusterroles.rbac.authorization.k8s.io',
    'rolebindings.rbac.authorization.k8s.io',
    'clusterrolebindings.rbac.authorization.k8s.io',
  ],
  operations: ['CREATE', 'UPDATE'],
  validate(admission) {
    const { server, user, object, oldObject } = admission;
    if (!server.rbac || !object) return;
    refuseHiddenRole(admission, object);
    const request = { user, object, ...(oldObject ? { oldObject } : {}) };
    checkEscalation(server.rbac, server.authorizer, request);
  },
};

/** What a role has is told to whoever may not bind it: a tenant names those that it may see. */
function refuseHiddenRole({ server, user, oldObject }: AdmissionRequest, object: KubeObject): void {
  const { kind, name = '' } = (object.roleRef ?? {}) as { kind?: string; name?: string };
  if (user.tenant === undefined || kind !== 'ClusterRole') return;
  const subjects = (from: KubeObject | undefined) => JSON.stringify(from?.subjects ?? []);
  if (oldObject && subjects(object) === subjects(oldObject)) return;
  const group = 'rbac.authorization.k8s.io';
  const resource = `${group}/clusterroles`;
  const entry = server.store.get({ resource, namespace: '', name });
  if (!entry || !isOfferedRole(entry)) throw notFound(group, 'clusterroles', name);
}

/** Approving and signing are permitted signer by signer. */
export const certificateSigners: AdmissionPlugin = {
  name: 'CertificateSigners',
  resources: ['certificatesigningrequests.certificates.k8s.io'],
  operations: ['UPDATE'],
  subresources: ['approval', 'status'],
  validate(request) {
    const { subresource, object, oldObject, user } = request;
    const certificate = (from: typeof object) =>
      (from?.status as { certificate?: string } | undefined)?.certificate;
    if (subresource === '') return;
    if (subresource === 'status' && verdictOf(object) !== verdictOf(oldObject)) {
      throw forbidden(request, 'approvals and denials are given through the subresource approval');
    }
    if (subresource === 'status' && certificate(object) === certificate(oldObject)) return;
    const verb = subresource === 'approval' ? 'approve' : 'sign';
    const { signerName = '' } = (oldObject?.spec ?? {}) as { signerName?: string };
    if (mayUseSigner(request, user, verb, signerName)) return;
    throw forbidden(
      request,
      `user not permitted to ${verb} requests with signerName "${signerName}"`,
    );
  },
};

/** What has been decided about a request: its conditions of the types that decide. */
function verdictOf(object: KubeObject | undefined): string {
  const { conditions = [] } = (object?.status ?? {}) as { conditions?: { type?: string }[] };
  const deciding = conditions.filter(({ type }) => type === 'Approved' || type === 'Denied');
  return JSON.stringify(deciding.map(({ type }) => type).sort());
}

function mayUseSigner(
  { server }: AdmissionRequest,
  user: UserInfo,
  verb: string,
  signerName: string,
): boolean {
  const domain = `${signerName.split('/')[0]}/*`;
  return [signerName, domain].some((name) =>
    isAllowed(
      server.authorizer.authorize({
        user,
        verb,
        isResourceRequest: true,
        group: 'certificates.k8s.io',
        version: 'v1',
        resource: 'signers',
        subresource: '',
        namespace: '',
        name,
        path: '',
      }),
    ),
  );
}

const CLIENT_SIGNER = 'kubernetes.io/kube-apiserver-client';
const MASTERS_GROUP = 'system:masters';

/** Nobody becomes a master, who is above all rules, by asking for a certificate. */
export const certificateSubject: AdmissionPlugin = {
  name: 'CertificateSubjectRestriction',
  resources: ['certificatesigningrequests.certificates.k8s.io'],
  operations: ['CREATE'],
  validate(request) {
    const spec = (request.object?.spec ?? {}) as { signerName?: string; request?: string };
    if (spec.signerName !== CLIENT_SIGNER) return;
    let organizations: string[];
    try {
      const pem = Buffer.from(spec.request ?? '', 'base64').toString('latin1');
      ({ organizations } = parseCertificateRequest(pem));
    } catch (error) {
      throw forbidden(request, (error as Error).message);
    }
    if (!organizations.includes(MASTERS_GROUP)) return;
    throw forbidden(
      request,
      `use of ${CLIENT_SIGNER} signer with ${MASTERS_GROUP} group is not allowed`,
    );
  },
};
