import { X509Certificate, createHash, createPrivateKey } from 'node:crypto';
import { join } from 'node:path';
import type { CertificateSigningRequest } from '../api/types.generated.ts';
import { isStatus } from '../api/status.ts';
import { createCertificateRequest } from '../auth/csr.ts';
import { createKey } from '../auth/pki.ts';
import { subjectOf } from '../auth/x509.ts';
import type { AlternativeNames } from '../auth/x509.ts';
import type { Clock } from '../base/clock.ts';
import { readFileIfExists, writeFileAtomic } from '../base/files.ts';
import type { Client } from '../client/client.ts';
import { CERTIFICATE_REQUESTS } from '../client/resources.ts';

/**
 * A node's certificates: one to speak to the API server with, one for the kubelet's own server.
 * Key and certificate lie in one file, so that a crash leaves a pair that fits or none.
 */
export interface KeyPair {
  cert: string;
  key: string;
}

/** A certificate that the cluster will not give. */
export class CertificateError extends Error {
  override name = 'CertificateError';
}

export type CertificateKind = 'client' | 'serving';

export const NODE_USER_PREFIX = 'system:node:';
export const NODES_GROUP = 'system:nodes';

const SIGNERS: Record<CertificateKind, { signerName: string; usages: string[] }> = {
  client: {
    signerName: 'kubernetes.io/kube-apiserver-client-kubelet',
    usages: ['digital signature', 'client auth'],
  },
  serving: {
    signerName: 'kubernetes.io/kubelet-serving',
    usages: ['digital signature', 'server auth'],
  },
};

/** After this part of its life a certificate is replaced (Kubernetes: 70 to 90 %). */
const RENEW_FRACTION = 0.8;
const WATCH_PAUSE_MS = 200;
/** An approver that is there answers at once; a person may take his time, so this is asked again. */
const APPROVAL_TIMEOUT_MS = 15 * 60_000;

/** The pair in the file, where it fits together, is of this CA and is valid now. */
export async function loadPair(
  directory: string,
  kind: CertificateKind,
  caCert: string,
  nowMs: number,
): Promise<KeyPair | undefined> {
  const text = await readFileIfExists(join(directory, `${kind}.pem`));
  const cert = /-----BEGIN CERTIFICATE-----[^]*?-----END CERTIFICATE-----\n?/.exec(text ?? '')?.[0];
  const key = /-----BEGIN PRIVATE KEY-----[^]*?-----END PRIVATE KEY-----\n?/.exec(text ?? '')?.[0];
  if (!cert || !key) return undefined;
  try {
    const parsed = new X509Certificate(cert);
    const isOurs = parsed.checkIssued(new X509Certificate(caCert));
    const isValid = parsed.validToDate.getTime() > nowMs;
    return isOurs && isValid && parsed.checkPrivateKey(createPrivateKey(key))
      ? { cert, key }
      : undefined;
  } catch {
    return undefined;
  }
}

/** When the certificate is to be replaced, in ms since the epoch. */
export function renewAtMs(cert: string): number {
  const { validFromDate, validToDate } = new X509Certificate(cert);
  const [from, to] = [validFromDate.getTime(), validToDate.getTime()];
  return from + (to - from) * RENEW_FRACTION;
}

/** Whether the certificate is good for all of these names and addresses. */
export function coversNames(cert: string, names: { dns: string[]; ips: string[] }): boolean {
  const parsed = new X509Certificate(cert);
  return (
    names.dns.every((name) => parsed.checkHost(name) !== undefined) &&
    names.ips.every((address) => parsed.checkIP(address) !== undefined)
  );
}

export interface RequestOptions {
  client: Client;
  directory: string;
  kind: CertificateKind;
  nodeName: string;
  names?: Partial<AlternativeNames>;
  clock: Clock;
  signal: AbortSignal;
}

/**
 * Asks the cluster for a certificate with a fresh key, waits until it is signed, and keeps both.
 * @throws CertificateError where the request is denied, fails or is not signed in a quarter of an hour
 */
export async function requestPair(options: RequestOptions): Promise<KeyPair> {
  const { client, kind, nodeName, clock, signal } = options;
  const key = createKey();
  const subject = subjectOf(`${NODE_USER_PREFIX}${nodeName}`, [NODES_GROUP]);
  const pem = createCertificateRequest(key, subject, options.names ?? {});
  const digest = createHash('sha256').update(pem).digest('hex').slice(0, 32);
  const name = `node-csr-${kind}-${digest}`;
  const request: CertificateSigningRequest = {
    apiVersion: 'certificates.k8s.io/v1',
    kind: 'CertificateSigningRequest',
    metadata: { name },
    spec: { request: Buffer.from(pem).toString('base64'), ...SIGNERS[kind] },
  };
  await client.create(CERTIFICATE_REQUESTS, request, { signal });
  const cert = await waitForCertificate(client, name, clock, signal);
  const pair = { cert, key };
  const path = join(options.directory, `${kind}.pem`);
  await writeFileAtomic(path, `${cert.trimEnd()}\n${key}`, { mode: 0o600, sync: true });
  return pair;
}

async function waitForCertificate(
  client: Client,
  name: string,
  clock: Clock,
  signal: AbortSignal,
): Promise<string> {
  const late = new AbortController();
  const timer = clock.after(APPROVAL_TIMEOUT_MS, () => late.abort());
  const until = AbortSignal.any([signal, late.signal]);
  const select = { fieldSelector: `metadata.name=${name}`, signal: until };
  try {
    for (;;) {
      const { items, metadata } = await client.list(CERTIFICATE_REQUESTS, select);
      const signed = items.map(certificateIn).find((cert) => cert !== undefined);
      if (signed !== undefined) return signed;
      const { resourceVersion = '' } = metadata;
      for await (const event of client.watch(CERTIFICATE_REQUESTS, {
        ...select,
        resourceVersion,
      })) {
        const cert = event.type === 'MODIFIED' ? certificateIn(event.object) : undefined;
        if (cert !== undefined) return cert;
      }
      // The server ends watches from time to time, and in a row while it stops.
      await clock.sleep(WATCH_PAUSE_MS, until);
    }
  } catch (error) {
    if (!late.signal.aborted) throw error;
    throw new CertificateError(`Cannot get certificate "${name}": nobody approved it in time`);
  } finally {
    timer.cancel();
  }
}

function certificateIn({ metadata, status }: CertificateSigningRequest): string | undefined {
  if (status?.certificate) return Buffer.from(status.certificate, 'base64').toString('utf8');
  const refused = status?.conditions?.find(({ type }) => type === 'Denied' || type === 'Failed');
  if (!refused) return undefined;
  throw new CertificateError(
    `Cannot get certificate "${metadata.name}": request is ${refused.type}: ${refused.message ?? ''}`,
  );
}

/** Whether asking again with the same credentials is without hope. */
export function isRefusal(error: unknown): boolean {
  return isStatus(error, 'Unauthorized') || isStatus(error, 'Forbidden');
}
