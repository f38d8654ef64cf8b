import assert from 'node:assert/strict';
import { generateKeyPairSync, sign } from 'node:crypto';
import { test } from 'node:test';
import { seededRandom } from '../base/random.ts';
import { createCertificateRequest, parseCertificateRequest } from './csr.ts';
import * as der from './der.ts';
import { createKey } from './pki.ts';
import { OID, subjectOf, toPem } from './x509.ts';

/** A request of an RSA key by openssl 3: CN=bob,O=dev,C=DE and one name of each type. */
const OPENSSL_REQUEST = `-----BEGIN CERTIFICATE REQUEST-----
MIICvDCCAaQCAQAwKTEMMAoGA1UEAwwDYm9iMQwwCgYDVQQKDANkZXYxCzAJBgNV
BAYTAkRFMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAzenNezQ4e/1C
mF2R0IlZ3ErIDn2lNMT7leLhASqWEfsSE+PF8m701up2AJSN3Nydn4UqR6BOPy9n
ylKrvcJDEH7mjCxluV+TVqEgfWtvc3bBhN6fWxOEUqwbspAjrgOfV09awlXneRwq
mQFFQ9KaEfzIKUnnvf4JIZS6ay1DIvbHJ+DCPlKLe2kNQ+OMHQFcyAOvdgz9Bav0
YXHRXNl/5JGfphFbPI4syOEOKVS05B9FsyT4LNwzlKyU1Ncbpze2QvTNqw/SQxJx
mIc4MYywpeLCKaViF97nR6d1U5OecGw61cc0n/AHznt37oosA4cQniQdIKbez7vM
OnWxCOraZQIDAQABoE4wTAYJKoZIhvcNAQkOMT8wPTA7BgNVHREENDAyggtib2Iu
ZXhhbXBsZYcECgECA4EPYm9iQGV4YW1wbGUuY29thgxzcGlmZmU6Ly9hL2IwDQYJ
KoZIhvcNAQELBQADggEBADCxAFh33V5hdDWOZ44g0/sGRp6sqIFdo1cG0N4VZ8C3
KXP3wLPHMzD23uBX3FJiW5HKZfTdkmnZicFL8bQnfi4IElqf6YLWWTbwyf+Ht3TJ
AxOP4DX6swjw9hgPTZKMPy+UJa340aHNdwu/ATii7HKZ6H6qOTu9U4F2T/bUJ2vT
zlc+qxJALnsv8OiDaGIlgrH5L7TOLOoM3TS23qCu9MvEXIvp0MnP8QPufvJdnkSJ
7IePiQBzvrW3R51wNvCZ/e58VCvDOvfa278AWzpFsgV6zq+j4MCaMcsTZyEtS1wj
Ed0PlZ3/g9r9kL9+DJB4ToFAUXh5PxrQgOVD25G6vvY=
-----END CERTIFICATE REQUEST-----`;

test('parseCertificateRequest() reads what createCertificateRequest() makes', () => {
  const pem = createCertificateRequest(createKey(), subjectOf('system:node:n1', ['system:nodes']), {
    dns: ['n1'],
    ips: ['10.0.0.1', 'fd00::1'],
  });
  const request = parseCertificateRequest(pem);
  assert.equal(request.commonName, 'system:node:n1');
  assert.deepEqual(request.organizations, ['system:nodes']);
  assert.deepEqual(request.names, {
    dns: ['n1'],
    ips: ['10.0.0.1', 'fd00::1'],
    emails: [],
    uris: [],
  });
});

test('parseCertificateRequest() reads a request of openssl', () => {
  const request = parseCertificateRequest(OPENSSL_REQUEST);
  assert.equal(request.commonName, 'bob');
  assert.deepEqual(request.organizations, ['dev']);
  assert.deepEqual(request.names.dns, ['bob.example']);
  assert.deepEqual(request.names.ips, ['10.1.2.3']);
  assert.deepEqual(request.names.emails, ['bob@example.com']);
  assert.equal(request.publicKey.asymmetricKeyType, 'rsa');
});

test('parseCertificateRequest() refuses a request signed with another key', () => {
  const own = generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
  const other = generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
  const info = der.sequence(
    der.integer(Buffer.from([0])),
    der.sequence(der.set(der.sequence(der.oid(OID.commonName), der.utf8String('x')))),
    own.publicKey.export({ type: 'spki', format: 'der' }),
    der.context(0),
  );
  const algorithm = der.sequence(der.oid(OID.ecdsaWithSha256));
  const forged = der.sequence(
    info,
    algorithm,
    der.bitString(sign('sha256', info, other.privateKey)),
  );
  assert.throws(
    () => parseCertificateRequest(toPem('CERTIFICATE REQUEST', forged)),
    /signature does not match/,
  );
});

test('parseCertificateRequest() refuses two common names and zero bytes', () => {
  const twice = [...subjectOf('a'), ...subjectOf('b')];
  assert.throws(
    () => parseCertificateRequest(createCertificateRequest(createKey(), twice)),
    /more than one common name/,
  );
  assert.throws(
    () => parseCertificateRequest(createCertificateRequest(createKey(), subjectOf('a\0b'))),
    /zero byte/,
  );
});

test('parseCertificateRequest() survives any damage with a plain error', () => {
  const seed = 20261121;
  const random = seededRandom(seed);
  const pem = createCertificateRequest(createKey(), subjectOf('x', ['y']), { dns: ['n'] });
  const good = Buffer.from(pem.split('\n').slice(1, -2).join(''), 'base64');
  for (let round = 0; round < 2000; round++) {
    const bad = Buffer.from(good);
    const flips = 1 + Math.floor(random.next() * 3);
    for (let flip = 0; flip < flips; flip++) {
      const at = Math.floor(random.next() * bad.length);
      bad[at] = (bad[at] ?? 0) ^ (1 + Math.floor(random.next() * 255));
    }
    if (bad.equals(good)) continue;
    const cut = random.next() < 0.2 ? bad.subarray(0, Math.floor(random.next() * bad.length)) : bad;
    try {
      parseCertificateRequest(toPem('CERTIFICATE REQUEST', cut));
      assert.fail(`seed ${seed}, round ${round}: damaged request was accepted`);
    } catch (error) {
      assert.match((error as Error).message, /^Cannot read certificate request: /);
    }
  }
});
