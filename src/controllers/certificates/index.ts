import { isStatus } from '../../api/status.ts';
import type { CertificateSigningRequest } from '../../api/types.generated.ts';
import { rfc3339 } from '../../base/clock.ts';
import { parseCertificateRequest } from '../../auth/csr.ts';
import type { CertificateRequest } from '../../auth/csr.ts';
import { NODE_USER_PREFIX, NODES_GROUP } from '../../auth/pki.ts';
import type { CaSigner } from '../../auth/pki.ts';
import type { BasicUsage, ExtendedUsage } from '../../auth/x509.ts';
import type { KubeObject } from '../../api/object.ts';
import { runController } from '../../client/controller.ts';
import { CERTIFICATE_REQUESTS, NODES, SERVICES } from '../../client/resources.ts';
import type { Resource } from '../../client/resources.ts';
import { createWorkQueue } from '../../client/workqueue.ts';
import type { ControllerContext } from '../common/context.ts';
import { findViolation, isAlive, namesFitNode, SIGNER } from './approval.ts';

const ACCESS_REVIEWS: Resource = {
  group: 'authorization.k8s.io',
  version: 'v1',
  resource: 'subjectaccessreviews',
  kind: 'SubjectAccessReview',
  namespaced: false,
};

/** Requests that are not decided yet may become approvable: the node's addresses come later. */
const RECHECK_MS = 5000;
const HOUR_MS = 3600_000;
/** How long requests are kept, by what became of them; as in Kubernetes. */
const KEEP_DECIDED_MS = HOUR_MS;
const KEEP_PENDING_MS = 24 * HOUR_MS;
const LIFETIME_SECONDS_MIN = 600;
const LIFETIME_MS_MAX = 365 * 24 * HOUR_MS;

/** Approves the certificates nodes need, signs what is approved, and tidies up. */
export function runCertificateController(
  context: ControllerContext,
  options: { signer: CaSigner },
): Promise<void> {
  const { informers, clock, log, signal } = context;
  const requests = informers.informer(CERTIFICATE_REQUESTS);
  const nodes = informers.informer(NODES);
  const services = informers.informer(SERVICES);
  const queue = createWorkQueue(clock);
  const enqueue = ({ metadata }: CertificateSigningRequest) => queue.add(metadata.name ?? '');
  requests.addHandler({ add: enqueue, update: enqueue });
  const reconcile = async (name: string): Promise<void> => {
    const object = requests.get(undefined, name);
    if (!object || object.metadata.deletionTimestamp) return;
    const nextMs = await advance(context, options.signer, object);
    if (nextMs !== undefined) queue.addAfter(name, nextMs);
  };
  return runController({
    name: 'certificates',
    queue,
    reconcile,
    informers: [requests, nodes, services],
    concurrency: 2,
    clock,
    log,
    signal,
  });
}

type Request = CertificateSigningRequest;

const isServed = ({ spec }: Request): boolean =>
  (Object.values(SIGNER) as string[]).includes(spec.signerName);

function hasCondition({ status }: Request, type: string): boolean {
  return !!status?.conditions?.some((condition) => condition.type === type);
}

/** One step for one request. @returns after how long the next is due */
async function advance(
  context: ControllerContext,
  signer: CaSigner,
  object: Request,
): Promise<number | undefined> {
  const isDecided = hasCondition(object, 'Approved') || hasCondition(object, 'Denied');
  const leftMs = keepMs(object, isDecided, context.clock.nowMs());
  if (leftMs <= 0) {
    await remove(context, object);
    return undefined;
  }
  if (object.status?.certificate || hasCondition(object, 'Failed') || !isServed(object))
    return leftMs;
  if (hasCondition(object, 'Denied')) return leftMs;
  let request: CertificateRequest;
  let violation: string | undefined;
  try {
    request = parseCertificateRequest(Buffer.from(object.spec.request, 'base64').toString('utf8'));
    violation = findViolation(object.spec, request);
  } catch (error) {
    violation = (error as Error).message;
    if (isDecided) await fail(context, object, violation);
    return leftMs;
  }
  if (isDecided) {
    if (violation) await fail(context, object, violation);
    else await issue(context, signer, object, request);
    return leftMs;
  }
  if (violation) return leftMs;
  const reason = await findApproval(context, object, request);
  if (!reason) return Math.min(RECHECK_MS, leftMs);
  await approve(context, object, reason);
  return leftMs;
}

function keepMs({ metadata }: Request, isDecided: boolean, nowMs: number): number {
  const createdMs = Date.parse(metadata.creationTimestamp ?? '') || nowMs;
  return createdMs + (isDecided ? KEEP_DECIDED_MS : KEEP_PENDING_MS) - nowMs;
}

async function remove({ client }: ControllerContext, { metadata }: Request): Promise<void> {
  try {
    await client.delete(CERTIFICATE_REQUESTS, { name: metadata.name ?? '' }, { uid: metadata.uid });
  } catch (error) {
    if (!isStatus(error, 'NotFound')) throw error;
  }
}

/** Why the request may be approved without a person, or undefined. */
async function findApproval(
  context: ControllerContext,
  object: Request,
  request: CertificateRequest,
): Promise<string | undefined> {
  const { username = '', groups = [], signerName } = object.spec;
  const nodeName = request.commonName.slice(NODE_USER_PREFIX.length);
  const node = context.informers.informer(NODES).get(undefined, nodeName);
  const isSelf = username === request.commonName && groups.includes(NODES_GROUP);
  if (signerName === SIGNER.kubeletServing) {
    const others = {
      nodes: context.informers.informer(NODES).list(),
      serviceAddresses: context.informers
        .informer(SERVICES)
        .list()
        .flatMap(({ spec }) => spec?.clusterIPs ?? []),
    };
    const isOwn = isSelf && namesFitNode(request, nodeName, node, others);
    return isOwn
      ? 'Auto approving kubelet serving certificate with the addresses of its node.'
      : undefined;
  }
  if (signerName !== SIGNER.kubeletClient) return undefined;
  if (isSelf) {
    const isAllowed = await review(context, object, 'selfnodeclient');
    return isAllowed
      ? 'Auto approving self kubelet client certificate after SubjectAccessReview.'
      : undefined;
  }
  // Whoever holds a bootstrap token could otherwise become a node that is alive, and read what
  // its pods may read.
  if (node && isAlive(node)) return undefined;
  const isAllowed = await review(context, object, 'nodeclient');
  return isAllowed
    ? 'Auto approving kubelet client certificate after SubjectAccessReview.'
    : undefined;
}

/** Whether the requester may have such requests approved, by RBAC. */
async function review(
  { client }: ControllerContext,
  { spec }: Request,
  subresource: string,
): Promise<boolean> {
  const answer = await client.create(ACCESS_REVIEWS, {
    apiVersion: 'authorization.k8s.io/v1',
    kind: 'SubjectAccessReview',
    metadata: {},
    spec: {
      user: spec.username,
      uid: spec.uid,
      groups: spec.groups,
      extra: spec.extra,
      resourceAttributes: {
        group: 'certificates.k8s.io',
        resource: 'certificatesigningrequests',
        verb: 'create',
        subresource,
        version: '*',
      },
    },
  } as KubeObject);
  return (answer.status as { allowed?: boolean } | undefined)?.allowed === true;
}

async function approve(
  { client, clock, log }: ControllerContext,
  object: Request,
  message: string,
): Promise<void> {
  const now = rfc3339(clock.nowMs());
  const condition = {
    type: 'Approved',
    status: 'True',
    reason: 'AutoApproved',
    message,
    lastUpdateTime: now,
    lastTransitionTime: now,
  };
  const conditions = [...(object.status?.conditions ?? []), condition];
  const approved = { ...object, status: { ...object.status, conditions } };
  await client.update(CERTIFICATE_REQUESTS, approved, { subresource: 'approval' });
  log.info('Approved certificate request', {
    request: object.metadata.name,
    requester: object.spec.username,
    signer: object.spec.signerName,
  });
}

async function issue(
  { client }: ControllerContext,
  signer: CaSigner,
  object: Request,
  { subject, publicKey, names }: CertificateRequest,
): Promise<void> {
  const usages = object.spec.usages ?? [];
  const isKeyUsage = (usage: string) =>
    usage === 'digital signature' || usage === 'key encipherment';
  const seconds = object.spec.expirationSeconds;
  const requestedMs = Math.max(LIFETIME_SECONDS_MIN, seconds ?? Infinity) * 1000;
  const certificate = signer.sign({
    subject,
    publicKey,
    names,
    usages: usages.filter(isKeyUsage) as BasicUsage[],
    extendedUsages: usages.filter((usage) => !isKeyUsage(usage)) as ExtendedUsage[],
    lifetimeMs: Math.min(requestedMs, LIFETIME_MS_MAX),
  });
  const status = { ...object.status, certificate: Buffer.from(certificate).toString('base64') };
  await client.updateStatus(CERTIFICATE_REQUESTS, { ...object, status });
}

async function fail(
  { client, clock }: ControllerContext,
  object: Request,
  message: string,
): Promise<void> {
  const now = rfc3339(clock.nowMs());
  const condition = {
    type: 'Failed',
    status: 'True',
    reason: 'SignerValidationFailure',
    message,
    lastUpdateTime: now,
    lastTransitionTime: now,
  };
  const conditions = [...(object.status?.conditions ?? []), condition];
  await client.updateStatus(CERTIFICATE_REQUESTS, {
    ...object,
    status: { ...object.status, conditions },
  });
}
