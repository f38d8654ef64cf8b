import { createPrivateKey, generateKeyPairSync, X509Certificate } from 'node:crypto';
import type { KeyObject } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import { isIP } from 'node:net';
import { join } from 'node:path';
import type { Clock } from '../base/clock.ts';
import { readFileIfExists, writeFileAtomic } from '../base/files.ts';
import type { Random } from '../base/random.ts';
import { certificateSha256, createCertificate, publicKeyOf, subjectOf } from './x509.ts';
import type { AlternativeNames, BasicUsage, ExtendedUsage, NameAttribute } from './x509.ts';

/** The cluster's certificates and keys, all PEM. */
export interface Pki {
  caCert: string;
  caKey: string;
  /** What join tokens carry: sha-256 of the CA certificate's DER, lower-case hexadecimal. */
  caSha256: string;
  /** The API server's certificate followed by the CA's, so that joining nodes can pin the CA. */
  serverCert: string;
  serverKey: string;
  /** With which the API server reaches kubelets. */
  kubeletClientCert: string;
  kubeletClientKey: string;
  adminCert: string;
  adminKey: string;
  /** Signs service account tokens: ECDSA P-256, PKCS #8. */
  serviceAccountKey: string;
}

export interface PkiOptions {
  /** Names and addresses under which the API server is reached. */
  hosts: string[];
  clock: Clock;
  random: Random;
}

export interface KeyPair {
  cert: string;
  key: string;
}

const ADMIN_USER = 'kubernetes-admin';
export const KUBELET_CLIENT_USER = 'kube-apiserver-kubelet-client';
export const MASTERS_GROUP = 'system:masters';
export const NODES_GROUP = 'system:nodes';
export const NODE_USER_PREFIX = 'system:node:';

const DAY_MS = 24 * 3600 * 1000;
const CA_LIFETIME_MS = 3650 * DAY_MS;
const LEAF_LIFETIME_MS = 365 * DAY_MS;
/** Leaves are renewed at start once less than this part of their life is left. */
const RENEW_BELOW_SHARE = 1 / 3;
/** For peers whose clocks are behind. */
const BACKDATE_MS = 5 * 60 * 1000;

/**
 * Makes what is missing in `directory`, renews what is close to its end or no longer fits
 * `hosts`, and leaves the rest alone. Keys are written before certificates and the pair is
 * checked on reading, so a crash at any point is repaired by the next start. The CA itself is
 * never replaced: every node has it pinned.
 *
 * @throws Error when the CA's files contradict each other or the CA has expired
 */
export async function ensurePki(directory: string, options: PkiOptions): Promise<Pki> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const ca = await ensureCa(directory, options);
  const leaf = (name: string, request: LeafRequest) =>
    ensureLeaf(directory, name, ca, request, options);
  const client = (commonName: string): LeafRequest => ({
    subject: subjectOf(commonName, [MASTERS_GROUP]),
    extendedUsages: ['client auth'],
  });
  const server = await leaf('server', {
    subject: subjectOf('kube-apiserver'),
    extendedUsages: ['server auth'],
    names: splitHosts(options.hosts),
  });
  const kubelet = await leaf('kubelet-client', client(KUBELET_CLIENT_USER));
  const admin = await leaf('admin', client(ADMIN_USER));
  return {
    caCert: ca.cert,
    caKey: ca.key,
    caSha256: certificateSha256(ca.cert),
    serverCert: server.cert + ca.cert,
    serverKey: server.key,
    kubeletClientCert: kubelet.cert,
    kubeletClientKey: kubelet.key,
    adminCert: admin.cert,
    adminKey: admin.key,
    serviceAccountKey: await ensureKey(join(directory, 'service-account.key')),
  };
}

/**
 * What another process of the server's machine needs to serve under the server's name: its pair,
 * and the CA that has signed the nodes' certificates. The keys of the CA stay where they are.
 * @throws Error where `ensurePki` has not been called yet
 */
export async function loadServingPair(directory: string): Promise<KeyPair & { caCert: string }> {
  const read = async (name: string) => {
    const text = await readFileIfExists(join(directory, name));
    if (text === undefined)
      throw new Error(`Cannot read "${join(directory, name)}": it is missing`);
    return text;
  };
  const caCert = await read('ca.crt');
  return { cert: (await read('server.crt')) + caCert, key: await read('server.key'), caCert };
}

async function ensureKey(path: string): Promise<string> {
  const existing = await readFileIfExists(path);
  if (existing !== undefined) return existing;
  const key = createKey();
  await writeFileAtomic(path, key, { mode: 0o600, sync: true });
  return key;
}

/** A new ECDSA P-256 private key, PKCS #8 PEM. */
export function createKey(): string {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
  return privateKey.export({ type: 'pkcs8', format: 'pem' }) as string;
}

async function ensureCa(directory: string, options: PkiOptions): Promise<KeyPair> {
  const certPath = join(directory, 'ca.crt');
  const keyPath = join(directory, 'ca.key');
  const cert = await readFileIfExists(certPath);
  if (cert === undefined) {
    const key = await ensureKey(keyPath);
    const made = createCa(key, options);
    await writeFileAtomic(certPath, made, { mode: 0o600, sync: true });
    return { cert: made, key };
  }
  const key = await readFileIfExists(keyPath);
  if (key === undefined)
    throw new Error(`Cannot use CA "${certPath}": its key "${keyPath}" is missing`);
  const parsed = new X509Certificate(cert);
  if (!parsed.checkPrivateKey(createPrivateKey(key))) {
    throw new Error(`Cannot use CA "${certPath}": "${keyPath}" is not its key`);
  }
  if (parsed.validToDate.getTime() <= options.clock.nowMs()) {
    throw new Error(`Cannot use CA "${certPath}": it expired at ${parsed.validTo}`);
  }
  return { cert, key };
}

/** A self-signed cluster CA for `key`. Its name has a number: no two CAs look alike. */
export function createCa(key: string, options: { clock: Clock; random: Random }): string {
  const nowMs = options.clock.nowMs();
  const privateKey = createPrivateKey(key);
  const label = Buffer.from(options.random.bytes(4)).toString('hex');
  return createCertificate(
    {
      subject: subjectOf(`hypernetes-ca-${label}`),
      publicKey: publicKeyOf(privateKey),
      serial: serialNumber(options.random),
      notBeforeMs: nowMs - BACKDATE_MS,
      notAfterMs: nowMs + CA_LIFETIME_MS,
      isCa: true,
      usages: ['digital signature', 'key encipherment', 'cert sign'],
    },
    { ownKey: privateKey },
  );
}

interface LeafRequest {
  subject: NameAttribute[];
  extendedUsages: ExtendedUsage[];
  names?: AlternativeNames;
}

async function ensureLeaf(
  directory: string,
  name: string,
  ca: KeyPair,
  request: LeafRequest,
  options: PkiOptions,
): Promise<KeyPair> {
  const certPath = join(directory, `${name}.crt`);
  const key = await ensureKey(join(directory, `${name}.key`));
  const existing = await readFileIfExists(certPath);
  if (existing !== undefined && isUsable(existing, key, ca, request, options.clock)) {
    return { cert: existing, key };
  }
  const cert = createCaSigner({ ...options, caCert: ca.cert, caKey: ca.key }).sign({
    ...request,
    publicKey: publicKeyOf(createPrivateKey(key)),
    usages: ['digital signature'],
  });
  await writeFileAtomic(certPath, cert, { mode: 0o600, sync: true });
  return { cert, key };
}

function isUsable(
  pem: string,
  key: string,
  ca: KeyPair,
  request: LeafRequest,
  clock: Clock,
): boolean {
  const cert = new X509Certificate(pem);
  const nowMs = clock.nowMs();
  const startMs = cert.validFromDate.getTime();
  const endMs = cert.validToDate.getTime();
  const isFresh = startMs <= nowMs && endMs - nowMs > (endMs - startMs) * RENEW_BELOW_SHARE;
  const names = request.names ?? { dns: [], ips: [] };
  return (
    isFresh &&
    cert.verify(new X509Certificate(ca.cert).publicKey) &&
    cert.checkPrivateKey(createPrivateKey(key)) &&
    names.dns.every((host) => cert.checkHost(host) !== undefined) &&
    names.ips.every((address) => cert.checkIP(address) !== undefined)
  );
}

/** Splits host names from addresses and drops repetitions. */
export function splitHosts(hosts: string[]): AlternativeNames {
  const unique = [...new Set(hosts)];
  return {
    dns: unique.filter((host) => !isIP(host)),
    ips: unique.filter((host) => isIP(host)),
    emails: [],
    uris: [],
  };
}

/** 16 random bytes: unique without a counter (CA/Browser rules ask for 64 bits or more). */
function serialNumber(random: Random): Uint8Array {
  const serial = Uint8Array.from(random.bytes(16));
  serial[0] = ((serial[0] ?? 0) & 0x7f) | 0x40;
  return serial;
}

export interface LeafCertificate {
  subject: NameAttribute[];
  publicKey: KeyObject;
  usages: BasicUsage[];
  extendedUsages: ExtendedUsage[];
  names?: Partial<AlternativeNames>;
  /** @default one year; never beyond the CA's own end */
  lifetimeMs?: number;
}

export interface CaSigner {
  caCert: string;
  /** Signs a leaf certificate and returns it as PEM. */
  sign(certificate: LeafCertificate): string;
  /** A fresh key with its client certificate. */
  clientPair(commonName: string, organizations?: string[]): KeyPair;
  /** A fresh key with its server certificate for these names and addresses. */
  serverPair(commonName: string, hosts: string[], organizations?: string[]): KeyPair;
}

/** The CA as a function: certificate in, signature out. Holds the CA's key in memory. */
export function createCaSigner(options: {
  caCert: string;
  caKey: string;
  clock: Clock;
  random: Random;
}): CaSigner {
  const issuer = {
    certificate: new X509Certificate(options.caCert),
    key: createPrivateKey(options.caKey),
  };
  const issuerEndMs = issuer.certificate.validToDate.getTime();
  const signLeaf = (leaf: LeafCertificate): string => {
    const nowMs = options.clock.nowMs();
    return createCertificate(
      {
        ...leaf,
        serial: serialNumber(options.random),
        notBeforeMs: nowMs - BACKDATE_MS,
        notAfterMs: Math.min(nowMs + (leaf.lifetimeMs ?? LEAF_LIFETIME_MS), issuerEndMs),
      },
      issuer,
    );
  };
  const pair = (leaf: Omit<LeafCertificate, 'publicKey' | 'usages'>): KeyPair => {
    const key = createKey();
    const publicKey = publicKeyOf(createPrivateKey(key));
    return { key, cert: signLeaf({ ...leaf, publicKey, usages: ['digital signature'] }) };
  };
  return {
    caCert: options.caCert,
    sign: signLeaf,
    clientPair: (commonName, organizations) =>
      pair({ subject: subjectOf(commonName, organizations), extendedUsages: ['client auth'] }),
    serverPair: (commonName, hosts, organizations) =>
      pair({
        subject: subjectOf(commonName, organizations),
        extendedUsages: ['server auth'],
        names: splitHosts(hosts),
      }),
  };
}
