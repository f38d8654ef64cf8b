import { readFile } from 'node:fs/promises';
import { certificateSha256 } from '../../auth/x509.ts';
import { describeError } from '../../base/log.ts';
import { fetchOfferedCa } from '../../client/https.ts';
import { UsageError } from '../errors.ts';
import type { Terminal } from '../prompt.ts';

export interface TrustOptions {
  /** Path of a PEM file. */
  caFile?: string | undefined;
  /** `sha256:…` */
  fingerprint?: string | undefined;
  /** That of an earlier login on the same server. */
  knownCa?: string | undefined;
  terminal: Terminal | undefined;
}

/**
 * The CA that a server's certificate has to be signed by: given, known by its fingerprint, known
 * from before, or agreed to by the person at the terminal. It is never simply believed.
 *
 * @returns PEM
 */
export async function trustedCa(server: string, options: TrustOptions): Promise<string> {
  const { caFile, knownCa, terminal } = options;
  const wanted = options.fingerprint && parseFingerprint(options.fingerprint);
  if (caFile && !wanted) return readCa(caFile);
  if (!wanted && knownCa) return knownCa;
  const { host } = new URL(server);
  const offered = caFile ? await readCa(caFile) : await offeredCa(server, host);
  const actual = certificateSha256(offered);
  if (wanted) {
    if (wanted === actual) return offered;
    throw new UsageError(
      `Cannot trust "${host}": its CA has the fingerprint ${formatFingerprint(actual)}, not the one ` +
        'that was given. Nothing was sent.',
    );
  }
  const about = `The CA of "${host}" is not known here. Its fingerprint is\n`;
  const shown = formatFingerprint(actual);
  if (!terminal) {
    throw new UsageError(
      `${about}  ${shown}\nCompare it with what the operator says ("hypernetes whoami" shows it on ` +
        'the server), and give it with --ca-fingerprint, or the CA itself with --ca FILE.',
    );
  }
  const question = `${about}  ${shown}\nDoes the operator of the cluster say the same? Trust it?`;
  if (await terminal.confirm(question)) return offered;
  throw new UsageError(`"${host}" is not trusted; nothing was sent to it.`);
}

function offeredCa(server: string, host: string): Promise<string> {
  return fetchOfferedCa(server).catch((error: unknown) => {
    throw new UsageError(`Cannot learn the CA of "${host}": ${describeError(error)}`);
  });
}

async function readCa(path: string): Promise<string> {
  const text = await readFile(path, 'utf8').catch((error: unknown) => {
    throw new UsageError(`Cannot read the CA "${path}": ${describeError(error)}`);
  });
  if (text.includes('-----BEGIN CERTIFICATE-----')) return text;
  throw new UsageError(`Cannot use the CA "${path}": it holds no certificate in PEM.`);
}

/** `sha256:` and 64 hexadecimal digits, as the fingerprint of a certificate is given. */
export function formatFingerprint(sha256: string): string {
  return `sha256:${sha256}`;
}

/** With or without `sha256:`, colons (as openssl prints it) and capitals. */
export function parseFingerprint(text: string): string {
  const digits = text
    .trim()
    .toLowerCase()
    .replace(/^sha-?256[:=]/, '')
    .replace(/^.*fingerprint=/, '')
    .replaceAll(':', '');
  if (/^[0-9a-f]{64}$/.test(digits)) return digits;
  throw new UsageError(
    `Cannot use the fingerprint ${JSON.stringify(text)}: write it as sha256:… with 64 ` +
      'hexadecimal digits.',
  );
}
