import { createHash, createPublicKey, sign, X509Certificate } from 'node:crypto';
import type { KeyObject } from 'node:crypto';
import { isIP } from 'node:net';
import { assert } from '../base/assert.ts';
import * as der from './der.ts';

/**
 * Certificates signed with ECDSA P-256 and SHA-256 (RFC 5280, 5758). Written on the DER encoder
 * because Node can parse certificates but neither make them nor read certificate requests, and a
 * library for it costs more start-up time and memory than the rest of the PKI together.
 */
export const OID = {
  commonName: '2.5.4.3',
  organization: '2.5.4.10',
  subjectKeyId: '2.5.29.14',
  keyUsage: '2.5.29.15',
  subjectAltName: '2.5.29.17',
  basicConstraints: '2.5.29.19',
  authorityKeyId: '2.5.29.35',
  extendedKeyUsage: '2.5.29.37',
  serverAuth: '1.3.6.1.5.5.7.3.1',
  clientAuth: '1.3.6.1.5.5.7.3.2',
  ecdsaWithSha256: '1.2.840.10045.4.3.2',
  extensionRequest: '1.2.840.113549.1.9.14',
} as const;

export interface NameAttribute {
  oid: string;
  value: string;
}

export interface AlternativeNames {
  dns: string[];
  ips: string[];
  emails: string[];
  uris: string[];
}

export type ExtendedUsage = 'server auth' | 'client auth';
export type BasicUsage = 'digital signature' | 'key encipherment' | 'cert sign' | 'crl sign';

/** RFC 5280, 4.2.1.3: positions in the KeyUsage bit string. */
const KEY_USAGE_BIT: Record<BasicUsage, number> = {
  'digital signature': 0,
  'key encipherment': 2,
  'cert sign': 5,
  'crl sign': 6,
};

const EXTENDED_USAGE_OID: Record<ExtendedUsage, string> = {
  'server auth': OID.serverAuth,
  'client auth': OID.clientAuth,
};

export interface CertificateFields {
  subject: NameAttribute[];
  /** The subject's public key. */
  publicKey: KeyObject;
  /** Unsigned, at most 20 bytes; must not repeat for one issuer. */
  serial: Uint8Array;
  notBeforeMs: number;
  notAfterMs: number;
  isCa?: boolean;
  usages: BasicUsage[];
  extendedUsages?: ExtendedUsage[];
  names?: Partial<AlternativeNames>;
}

export interface Issuer {
  certificate: X509Certificate;
  key: KeyObject;
}

/** Signs a certificate; without `issuer` it is self-signed with `ownKey`. Returns PEM. */
export function createCertificate(
  fields: CertificateFields,
  issuer: Issuer | { ownKey: KeyObject },
): string {
  const isSelfSigned = 'ownKey' in issuer;
  const subject = encodeName(fields.subject);
  const spki = fields.publicKey.export({ type: 'spki', format: 'der' });
  const ownKeyId = keyIdentifier(spki);
  const authority = isSelfSigned
    ? { name: subject, keyId: ownKeyId }
    : readAuthority(issuer.certificate);
  const key = isSelfSigned ? issuer.ownKey : issuer.key;
  assert(key.asymmetricKeyType === 'ec', 'the signing key of a certificate is an EC key');
  const algorithm = der.sequence(der.oid(OID.ecdsaWithSha256));
  const toBeSigned = der.sequence(
    der.context(0, der.integer(Buffer.from([2]))),
    der.integer(fields.serial),
    algorithm,
    authority.name,
    der.sequence(der.time(fields.notBeforeMs), der.time(fields.notAfterMs)),
    subject,
    spki,
    der.context(3, der.sequence(...encodeExtensions(fields, ownKeyId, authority.keyId))),
  );
  const signature = sign('sha256', toBeSigned, key);
  return toPem('CERTIFICATE', der.sequence(toBeSigned, algorithm, der.bitString(signature)));
}

function encodeExtensions(
  fields: CertificateFields,
  ownKeyId: Buffer,
  authorityKeyId: Buffer | undefined,
): Buffer[] {
  const extension = (id: string, value: Buffer, critical = false) =>
    der.sequence(der.oid(id), ...(critical ? [der.boolean(true)] : []), der.octetString(value));
  const constraints = der.sequence(...(fields.isCa ? [der.boolean(true)] : []));
  const extensions = [
    extension(OID.basicConstraints, constraints, true),
    extension(OID.keyUsage, encodeKeyUsage(fields.usages), true),
    extension(OID.subjectKeyId, der.octetString(ownKeyId)),
  ];
  if (fields.extendedUsages?.length) {
    const ids = fields.extendedUsages.map((usage) => der.oid(EXTENDED_USAGE_OID[usage]));
    extensions.push(extension(OID.extendedKeyUsage, der.sequence(...ids)));
  }
  if (authorityKeyId) {
    const value = der.sequence(der.contextPrimitive(0, authorityKeyId));
    extensions.push(extension(OID.authorityKeyId, value));
  }
  const names = encodeAlternativeNames(fields.names ?? {});
  if (names.length) extensions.push(extension(OID.subjectAltName, der.sequence(...names)));
  return extensions;
}

function encodeKeyUsage(usages: BasicUsage[]): Buffer {
  let bits = 0;
  let highest = 0;
  for (const usage of usages) {
    const position = KEY_USAGE_BIT[usage];
    bits |= 0x80 >> position;
    highest = Math.max(highest, position);
  }
  return der.bitString(Buffer.from([bits]), 7 - highest);
}

/** GeneralNames, without their SEQUENCE. */
export function encodeAlternativeNames(names: Partial<AlternativeNames>): Buffer[] {
  const text = (tag: number, values: string[] = []) =>
    values.map((value) => der.contextPrimitive(tag, Buffer.from(value, 'latin1')));
  return [
    ...text(1, names.emails),
    ...text(2, names.dns),
    ...text(6, names.uris),
    ...(names.ips ?? []).map((address) => der.contextPrimitive(7, addressBytes(address))),
  ];
}

/** The 4 or 16 bytes of an IP address. */
export function addressBytes(address: string): Buffer {
  if (isIP(address) === 4) return Buffer.from(address.split('.').map(Number));
  assert(isIP(address) === 6, `"${address}" is an IP address`);
  // The URL parser writes IPv6 in its canonical form: hexadecimal only, one `::` at most.
  const canonical = new URL(`http://[${address.replace(/%.*/, '')}]`).hostname.slice(1, -1);
  const [head = '', tail] = canonical.split('::');
  const words = (part: string) => (part ? part.split(':').map((word) => parseInt(word, 16)) : []);
  const left = words(head);
  const right = tail === undefined ? [] : words(tail);
  const zeros = new Array<number>(8 - left.length - right.length).fill(0);
  const bytes = Buffer.alloc(16);
  [...left, ...zeros, ...right].forEach((word, index) => bytes.writeUInt16BE(word, index * 2));
  return bytes;
}

/** One attribute per RDN, organizations first, as Go's pkix.Name writes them. */
export function encodeName(attributes: NameAttribute[]): Buffer {
  return der.sequence(
    ...attributes.map(({ oid, value }) =>
      der.set(der.sequence(der.oid(oid), der.utf8String(value))),
    ),
  );
}

/** `O=…,CN=…`, in the order in which Kubernetes' own tools write them. */
export function subjectOf(commonName: string, organizations: string[] = []): NameAttribute[] {
  return [
    ...organizations.map((value) => ({ oid: OID.organization, value })),
    { oid: OID.commonName, value: commonName },
  ];
}

/** SHA-1 of the public key's bits: RFC 5280, 4.2.1.2 (1). An identifier, not a safeguard. */
function keyIdentifier(spki: Uint8Array): Buffer {
  const [, bits] = der.readChildren(der.readOne(spki));
  return createHash('sha1').update(der.readBitString(bits)).digest();
}

/** The issuer's name exactly as its certificate spells it, and its key identifier. */
function readAuthority(certificate: X509Certificate): { name: Buffer; keyId: Buffer | undefined } {
  const [tbs] = der.readChildren(der.readOne(certificate.raw));
  const fields = der.readChildren(der.expectTag(tbs, der.TAG.sequence));
  const name = der.expectTag(fields[5], der.TAG.sequence).raw;
  const wrapper = fields.find((field) => field.tag === 0xa3);
  if (!wrapper) return { name, keyId: undefined };
  const extension = readExtensions(der.readOne(wrapper.content)).get(OID.subjectKeyId);
  const keyId = extension && der.readOne(extension, der.TAG.octetString).content;
  return { name, keyId };
}

/** Extension values by OID. Repeated extensions are refused. */
export function readExtensions(list: der.DerElement): Map<string, Buffer> {
  const found = new Map<string, Buffer>();
  for (const extension of der.readChildren(list, der.TAG.sequence)) {
    const parts = der.readChildren(extension, der.TAG.sequence);
    const id = der.readOid(parts[0]);
    if (found.has(id)) throw new der.DerError(`Cannot read DER: extension ${id} is repeated`);
    found.set(id, der.expectTag(parts.at(-1), der.TAG.octetString).content);
  }
  return found;
}

export function publicKeyOf(privateKey: KeyObject): KeyObject {
  return createPublicKey(privateKey);
}

/** @param label such as `CERTIFICATE` */
export function toPem(label: string, bytes: Uint8Array): string {
  const lines =
    Buffer.from(bytes)
      .toString('base64')
      .match(/.{1,64}/g) ?? [];
  return `-----BEGIN ${label}-----\n${lines.join('\n')}\n-----END ${label}-----\n`;
}

/** The sha-256 of a certificate's DER, in lower-case hexadecimal, as join tokens carry it. */
export function certificateSha256(pem: string): string {
  return createHash('sha256').update(new X509Certificate(pem).raw).digest('hex');
}
