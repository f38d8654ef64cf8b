import { createPrivateKey, createPublicKey, sign, verify } from 'node:crypto';
import type { KeyObject } from 'node:crypto';
import * as der from './der.ts';
import { encodeAlternativeNames, encodeName, OID, readExtensions, toPem } from './x509.ts';
import type { AlternativeNames, NameAttribute } from './x509.ts';

/** A certificate request (PKCS #10, RFC 2986) whose own signature was found good. */
export interface CertificateRequest {
  subject: NameAttribute[];
  commonName: string;
  organizations: string[];
  names: AlternativeNames;
  publicKey: KeyObject;
}

/** Far above any honest request (an RSA-8192 key with many names stays below 8 KiB). */
const REQUEST_LIMIT_BYTES = 64 << 10;
const NAMES_LIMIT = 256;
const RSA_MODULUS_BITS_MIN = 2048;
const RSA_MODULUS_BITS_MAX = 8192;

/** Signature algorithms by OID: the digest, or null where the algorithm includes it. */
const SIGNATURE_DIGEST: Record<string, string | null> = {
  '1.2.840.113549.1.1.11': 'sha256',
  '1.2.840.113549.1.1.12': 'sha384',
  '1.2.840.113549.1.1.13': 'sha512',
  '1.2.840.10045.4.3.2': 'sha256',
  '1.2.840.10045.4.3.3': 'sha384',
  '1.2.840.10045.4.3.4': 'sha512',
  '1.3.101.112': null,
};

const KEY_TYPES = new Set(['rsa', 'ec', 'ed25519']);
const CURVES = new Set(['prime256v1', 'secp384r1', 'secp521r1']);

/**
 * Parses a PEM certificate request and verifies that its sender holds the private key.
 *
 * @throws Error saying what is wrong; its text is meant for the requester
 */
export function parseCertificateRequest(pem: string): CertificateRequest {
  try {
    return parse(pemBytes(pem));
  } catch (error) {
    throw new Error(`Cannot read certificate request: ${(error as Error).message}`, {
      cause: error,
    });
  }
}

function pemBytes(pem: string): Buffer {
  if (pem.length > REQUEST_LIMIT_BYTES) {
    throw new Error(`it has ${pem.length} bytes, the limit is ${REQUEST_LIMIT_BYTES}`);
  }
  const label = '(?:NEW )?CERTIFICATE REQUEST-----';
  const block = new RegExp(`^\\s*-----BEGIN ${label}([A-Za-z0-9+/=\\s]+)-----END ${label}\\s*$`);
  const match = block.exec(pem);
  if (!match?.[1]) throw new Error('PEM block type must be CERTIFICATE REQUEST');
  return Buffer.from(match[1], 'base64');
}

function parse(bytes: Buffer): CertificateRequest {
  const [info, algorithm, signature] = der.readChildren(der.readOne(bytes), der.TAG.sequence);
  const [version, subject, spki, attributes] = der.readChildren(
    der.expectTag(info, der.TAG.sequence),
  );
  der.expectTag(version, der.TAG.integer);
  const publicKey = createPublicKey({
    key: der.expectTag(spki, der.TAG.sequence).raw,
    type: 'spki',
    format: 'der',
  });
  checkKey(publicKey);
  const [algorithmId] = der.readChildren(der.expectTag(algorithm, der.TAG.sequence));
  const digest = SIGNATURE_DIGEST[der.readOid(algorithmId)];
  if (digest === undefined) throw new Error('signature algorithm is not supported');
  const raw = der.expectTag(info, der.TAG.sequence).raw;
  if (!verify(digest, raw, publicKey, der.readBitString(signature))) {
    throw new Error('signature does not match the public key');
  }
  const name = readName(der.expectTag(subject, der.TAG.sequence));
  return { ...name, names: readRequestedNames(attributes), publicKey };
}

function checkKey(key: KeyObject): void {
  const type = key.asymmetricKeyType ?? '';
  if (!KEY_TYPES.has(type)) throw new Error(`key type "${type}" is not supported`);
  const bits = key.asymmetricKeyDetails?.modulusLength;
  if (bits !== undefined && (bits < RSA_MODULUS_BITS_MIN || bits > RSA_MODULUS_BITS_MAX)) {
    const range = `${RSA_MODULUS_BITS_MIN} to ${RSA_MODULUS_BITS_MAX}`;
    throw new Error(`RSA key has ${bits} bits, want ${range}`);
  }
  const curve = key.asymmetricKeyDetails?.namedCurve;
  if (curve !== undefined && !CURVES.has(curve))
    throw new Error(`curve "${curve}" is not supported`);
}

function readName(
  name: der.DerElement,
): Pick<CertificateRequest, 'subject' | 'commonName' | 'organizations'> {
  const subject: NameAttribute[] = [];
  for (const rdn of der.readChildren(name)) {
    for (const attribute of der.readChildren(rdn, der.TAG.set)) {
      const [id, value] = der.readChildren(attribute, der.TAG.sequence);
      const text = der.readString(value);
      // What a C library reads must be what was checked here.
      if (text.includes('\0')) throw new Error('subject contains a zero byte');
      subject.push({ oid: der.readOid(id), value: text });
    }
  }
  if (subject.length > NAMES_LIMIT) throw new Error('subject has too many attributes');
  const valuesOf = (id: string) =>
    subject.filter((attribute) => attribute.oid === id).map((attribute) => attribute.value);
  const [commonName = '', ...more] = valuesOf(OID.commonName);
  if (more.length) throw new Error('subject has more than one common name');
  return { subject, commonName, organizations: valuesOf(OID.organization) };
}

function readRequestedNames(attributes: der.DerElement | undefined): AlternativeNames {
  const names: AlternativeNames = { dns: [], ips: [], emails: [], uris: [] };
  if (!attributes) return names;
  let extensionRequestCount = 0;
  for (const attribute of der.readChildren(attributes, 0xa0)) {
    const [id, values] = der.readChildren(attribute, der.TAG.sequence);
    if (der.readOid(id) !== OID.extensionRequest) continue;
    extensionRequestCount += 1;
    const [list] = der.readChildren(der.expectTag(values, der.TAG.set));
    const value = readExtensions(der.expectTag(list, der.TAG.sequence)).get(OID.subjectAltName);
    if (value) readAlternativeNames(value, names);
  }
  if (extensionRequestCount > 1) throw new Error('extensions are requested more than once');
  return names;
}

function readAlternativeNames(value: Buffer, names: AlternativeNames): void {
  const list = der.readChildren(der.readOne(value, der.TAG.sequence));
  if (list.length > NAMES_LIMIT) throw new Error('there are too many alternative names');
  for (const name of list) {
    const text = name.content.toString('latin1');
    if (name.tag !== 0x87 && !/^[\x21-\x7e]+$/.test(text)) {
      throw new Error('alternative name has characters that are not allowed');
    }
    switch (name.tag) {
      case 0x81:
        names.emails.push(text);
        break;
      case 0x82:
        names.dns.push(text);
        break;
      case 0x86:
        names.uris.push(text);
        break;
      case 0x87:
        names.ips.push(formatAddress(name.content));
        break;
      default:
        throw new Error('alternative name is of a type that is not supported');
    }
  }
}

function formatAddress(bytes: Buffer): string {
  if (bytes.length === 4) return bytes.join('.');
  if (bytes.length !== 16) throw new Error('IP address has the wrong length');
  const words = Array.from({ length: 8 }, (_, index) => bytes.readUInt16BE(index * 2).toString(16));
  return new URL(`http://[${words.join(':')}]`).hostname.slice(1, -1);
}

/** A PEM certificate request for an EC private key, as a joining node sends it. */
export function createCertificateRequest(
  key: string,
  subject: NameAttribute[],
  names: Partial<AlternativeNames> = {},
): string {
  const privateKey = createPrivateKey(key);
  const alternatives = encodeAlternativeNames(names);
  const extension = der.sequence(
    der.oid(OID.subjectAltName),
    der.octetString(der.sequence(...alternatives)),
  );
  const attribute = der.sequence(der.oid(OID.extensionRequest), der.set(der.sequence(extension)));
  const info = der.sequence(
    der.integer(Buffer.from([0])),
    encodeName(subject),
    createPublicKey(privateKey).export({ type: 'spki', format: 'der' }),
    der.context(0, ...(alternatives.length ? [attribute] : [])),
  );
  const algorithm = der.sequence(der.oid(OID.ecdsaWithSha256));
  const signature = der.bitString(sign('sha256', info, privateKey));
  return toPem('CERTIFICATE REQUEST', der.sequence(info, algorithm, signature));
}
