import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { test } from 'node:test';
import type { CertificateSigningRequest, Node } from '../../api/types.generated.ts';
import type { KubeObject } from '../../api/object.ts';
import { createCertificateRequest, parseCertificateRequest } from '../../auth/csr.ts';
import { createCa, createCaSigner, createKey } from '../../auth/pki.ts';
import type { AlternativeNames } from '../../auth/x509.ts';
import { subjectOf } from '../../auth/x509.ts';
import { FakeClock } from '../../base/clock.fake.ts';
import { seededRandom } from '../../base/random.ts';
import { CERTIFICATE_REQUESTS, NODES, SERVICES } from '../../client/resources.ts';
import type { Resource } from '../../client/resources.ts';
import { startTestCluster } from '../common/testing.fake.ts';
import { findViolation } from './approval.ts';
import { runCertificateController } from './index.ts';

const REVIEWS: Resource = {
  group: 'authorization.k8s.io',
  version: 'v1',
  resource: 'subjectaccessreviews',
  kind: 'SubjectAccessReview',
  namespaced: false,
};

const BOOTSTRAP = {
  username: 'system:bootstrap:abcdef',
  groups: ['system:bootstrappers', 'system:bootstrappers:hypernetes:nodes'],
};
const SELF = { username: 'system:node:n1', groups: ['system:nodes', 'system:authenticated'] };

function start(t: Parameters<typeof startTestCluster>[0], isAllowed = true) {
  const clock = new FakeClock();
  const random = seededRandom(1);
  const caKey = createKey();
  const signer = createCaSigner({
    caCert: createCa(caKey, { clock, random }),
    caKey,
    clock,
    random,
  });
  const reviews: KubeObject[] = [];
  const cluster = startTestCluster(t, [
    (context) => {
      const { create } = context.client;
      // Reviews are answered, not stored.
      context.client.create = async (resource, object) => {
        if (resource.resource !== REVIEWS.resource) return create(resource, object);
        reviews.push(object);
        return { ...object, status: { allowed: isAllowed } };
      };
      return runCertificateController(context, { signer });
    },
  ]);
  const ask = (
    signerName: string,
    requester: { username: string; groups: string[] },
    request: {
      names?: Partial<AlternativeNames>;
      organizations?: string[];
      commonName?: string;
    } = {},
    usages = ['digital signature', 'client auth'],
  ) => {
    const { commonName = 'system:node:n1', organizations = ['system:nodes'], names } = request;
    const pem = createCertificateRequest(createKey(), subjectOf(commonName, organizations), names);
    cluster.api.put(CERTIFICATE_REQUESTS, {
      apiVersion: 'certificates.k8s.io/v1',
      kind: 'CertificateSigningRequest',
      metadata: { name: 'csr' },
      spec: {
        signerName: `kubernetes.io/${signerName}`,
        request: Buffer.from(pem).toString('base64'),
        usages,
        ...requester,
      },
    });
  };
  const result = () => {
    const csr = cluster.api.get(
      CERTIFICATE_REQUESTS,
      undefined,
      'csr',
    ) as CertificateSigningRequest;
    const pem = Buffer.from(csr?.status?.certificate ?? '', 'base64').toString();
    return {
      csr,
      conditions: (csr?.status?.conditions ?? []).map(({ type }) => type),
      certificate: pem ? new X509Certificate(pem) : undefined,
    };
  };
  return { ...cluster, signer, reviews, ask, result };
}

const node = (ready: string): Node => ({
  apiVersion: 'v1',
  kind: 'Node',
  metadata: { name: 'n1' },
  status: {
    addresses: [
      { type: 'InternalIP', address: '10.0.0.1' },
      { type: 'Hostname', address: 'host1' },
    ],
    conditions: [{ type: 'Ready', status: ready }],
  },
});

test('a joining node gets its client certificate', async (t) => {
  const { ask, pass, result, signer, reviews } = start(t);
  ask('kube-apiserver-client-kubelet', BOOTSTRAP);
  await pass(1000);
  const { certificate, conditions } = result();
  assert.deepEqual(conditions, ['Approved']);
  assert.equal(certificate?.subject, 'O=system:nodes\nCN=system:node:n1');
  assert.ok(certificate?.verify(new X509Certificate(signer.caCert).publicKey));
  assert.deepEqual(certificate?.keyUsage, ['1.3.6.1.5.5.7.3.2']);
  const attributes = (reviews[0]?.spec as { resourceAttributes: object }).resourceAttributes;
  assert.equal((attributes as { subresource: string }).subresource, 'nodeclient');
});

test('a token without the right gets nothing', async (t) => {
  const { ask, pass, result } = start(t, false);
  ask('kube-apiserver-client-kubelet', BOOTSTRAP);
  await pass(6000);
  assert.deepEqual(result().conditions, []);
});

test('a bootstrap token does not become a node that is alive, until it is not', async (t) => {
  const { api, ask, pass, result } = start(t);
  api.put(NODES, node('True'));
  ask('kube-apiserver-client-kubelet', BOOTSTRAP);
  await pass(6000);
  assert.deepEqual(result().conditions, []);
  api.put(NODES, node('Unknown'));
  await pass(6000);
  assert.deepEqual(result().conditions, ['Approved']);
});

test('a node renews its own certificate', async (t) => {
  const { api, ask, pass, result, reviews } = start(t);
  api.put(NODES, node('True'));
  ask('kube-apiserver-client-kubelet', SELF);
  await pass(1000);
  assert.ok(result().certificate);
  const { resourceAttributes } = reviews[0]?.spec as {
    resourceAttributes: { subresource: string };
  };
  assert.equal(resourceAttributes.subresource, 'selfnodeclient');
});

test('a serving certificate is for the addresses of its own node', async (t) => {
  const { api, ask, pass, result } = start(t);
  api.put(NODES, node('True'));
  const serving = ['digital signature', 'server auth'];
  ask('kubelet-serving', SELF, { names: { ips: ['10.0.0.1'], dns: ['n1', 'host1'] } }, serving);
  await pass(1000);
  assert.ok(result().certificate?.checkIP('10.0.0.1'));
  const refused: [who: typeof SELF, names: Partial<AlternativeNames>][] = [
    [SELF, { ips: ['10.0.0.2'] }],
    [SELF, { dns: ['kubernetes.default.svc'] }],
    [BOOTSTRAP, { ips: ['10.0.0.1'] }],
    [{ ...SELF, username: 'system:node:n2' }, { ips: ['10.0.0.1'] }],
  ];
  for (const [who, names] of refused) {
    api.remove(CERTIFICATE_REQUESTS, undefined, 'csr');
    ask('kubelet-serving', who, { names }, serving);
    await pass(6000);
    assert.deepEqual(result().conditions, [], JSON.stringify(names));
  }
});

test("no node gets a certificate for the API server's names, or for another's", async (t) => {
  const { api, ask, pass, result } = start(t);
  const claimed = [
    { type: 'InternalIP', address: '10.0.0.1' },
    { type: 'InternalIP', address: '10.0.0.9' },
    { type: 'ExternalIP', address: '10.96.0.1' },
    { type: 'Hostname', address: 'kubernetes.default.svc' },
    { type: 'InternalDNS', address: 'elder' },
  ];
  const claimant = node('True');
  const elder: Node = {
    ...node('True'),
    metadata: { name: 'elder', creationTimestamp: '2026-01-01T00:00:00Z' },
    status: { ...claimant.status, addresses: [{ type: 'InternalIP', address: '10.0.0.9' }] },
  };
  api.put(NODES, elder);
  api.put(NODES, {
    ...claimant,
    metadata: { name: 'n1', creationTimestamp: '2026-01-02T00:00:00Z' },
    status: { ...claimant.status, addresses: claimed },
  });
  api.put(SERVICES, {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: 'kubernetes', namespace: 'default' },
    spec: { clusterIP: '10.96.0.1', clusterIPs: ['10.96.0.1'] },
  });
  const serving = ['digital signature', 'server auth'];
  for (const { type, address } of claimed.slice(1)) {
    const names = type.endsWith('IP') ? { ips: [address] } : { dns: [address] };
    ask('kubelet-serving', SELF, { names }, serving);
    await pass(6000);
    assert.deepEqual(result().conditions, [], address);
    api.remove(CERTIFICATE_REQUESTS, undefined, 'csr');
  }
  // The elder is dead: its address may be a machine's that joined anew.
  api.put(NODES, { ...elder, status: { addresses: elder.status?.addresses ?? [] } });
  const names = { ips: ['10.0.0.1', '10.0.0.9'], dns: ['n1'] };
  ask('kubelet-serving', SELF, { names }, serving);
  await pass(6000);
  assert.deepEqual(result().conditions, ['Approved']);
});

test('what a person approved is signed, unless it breaks the rules of its signer', async (t) => {
  const { api, ask, pass, result } = start(t);
  const approve = async () => {
    await pass(1000);
    assert.deepEqual(result().conditions, []);
    const { csr } = result();
    api.put(CERTIFICATE_REQUESTS, {
      ...csr,
      status: { conditions: [{ type: 'Approved', status: 'True' }] },
    });
    await pass(1000);
  };
  ask('kube-apiserver-client', SELF, { commonName: 'ann', organizations: ['dev'] });
  await approve();
  assert.equal(result().certificate?.subject, 'O=dev\nCN=ann');
  api.remove(CERTIFICATE_REQUESTS, undefined, 'csr');
  ask('kube-apiserver-client', SELF, { commonName: 'eve', organizations: ['system:masters'] });
  await approve();
  assert.deepEqual(result().conditions, ['Approved', 'Failed']);
  assert.equal(result().certificate, undefined);
});

test('requests are tidied up', async (t) => {
  const { api, ask, pass, result } = start(t);
  ask('kube-apiserver-client-kubelet', BOOTSTRAP);
  await pass(1000);
  assert.ok(result().certificate);
  await pass(3_660_000);
  assert.equal(api.all(CERTIFICATE_REQUESTS).length, 0);
});

test('findViolation() names the rule that a request breaks', () => {
  const check = (
    signerName: string,
    usages: string[],
    commonName: string,
    organizations: string[],
    names?: Partial<AlternativeNames>,
  ) => {
    const pem = createCertificateRequest(createKey(), subjectOf(commonName, organizations), names);
    const spec = { signerName: `kubernetes.io/${signerName}`, usages, request: '' };
    return findViolation(spec, parseCertificateRequest(pem)) ?? '';
  };
  const client = ['client auth'];
  const kubelet = 'kube-apiserver-client-kubelet';
  assert.equal(check(kubelet, client, 'system:node:a', ['system:nodes']), '');
  assert.match(check(kubelet, ['server auth'], 'system:node:a', ['system:nodes']), /usages/);
  assert.match(
    check(kubelet, [...client, 'cert sign'], 'system:node:a', ['system:nodes']),
    /usages/,
  );
  assert.match(check(kubelet, client, 'system:node:a', ['system:nodes', 'x']), /organization/);
  assert.match(check(kubelet, client, 'kubernetes-admin', ['system:nodes']), /common name/);
  assert.match(check(kubelet, client, 'system:node:', ['system:nodes']), /common name/);
  assert.match(check(kubelet, client, 'system:node:a', ['system:nodes'], { dns: ['x'] }), /names/);
  assert.match(
    check('kubelet-serving', ['server auth'], 'system:node:a', ['system:nodes']),
    /name is req/,
  );
  assert.match(check('other', client, 'x', []), /not served/);
});
