import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { parseJoinToken } from '../auth/bootstrap-tokens.ts';
import { certificateSha256 } from '../auth/x509.ts';
import { splitHosts } from '../auth/pki.ts';
import type { Clock } from '../base/clock.ts';
import { readFileIfExists, writeFileAtomic } from '../base/files.ts';
import { describeError } from '../base/log.ts';
import type { Log } from '../base/log.ts';
import { createClient } from '../client/client.ts';
import { createHttpsTransport, fetchPinnedCa } from '../client/https.ts';
import type { Transport } from '../client/transport.ts';
import {
  coversNames,
  isRefusal,
  loadPair,
  renewAtMs,
  requestPair,
} from './certificates.ts';
import type { KeyPair } from './certificates.ts';

/**
 * How a machine becomes a node:
 *
 *   join token ──► CA, checked by its fingerprint ──► client certificate, by the token
 *              ──► serving certificate, as the node itself
 *
 * All of it is kept in the node's directory; a restart needs neither token nor network for it.
 * Both certificates are replaced when four fifths of their life are over.
 */
export interface JoinOptions {
  /** Owned by the kubelet: certificates and keys. Made where it is missing. */
  directory: string;
  /** `https://host:port` of the API server. */
  server: string;
  /** `<sha256 of the CA>::<id>.<secret>`; may be spent once the node has joined. */
  token: string;
  nodeName: string;
  /** Names and addresses under which the API server reaches the kubelet. */
  hosts: string[];
  clock: Clock;
  log: Log;
}

export interface NodeIdentity {
  caCert: string;
  /** As the node; goes on working when the certificate is replaced. */
  transport: Transport;
  /**
   * The certificate of the kubelet's own server: the one that is kept, or a new one once it is
   * approved. Approval wants the addresses in the Node object: call it when the node is there.
   */
  serving(signal: AbortSignal): Promise<KeyPair>;
  /** Replaces both certificates in time until the signal aborts. Never rejects. */
  keepFresh(onServing: (pair: KeyPair) => void, signal: AbortSignal): Promise<void>;
}

const RETRY_MIN_MS = 500;
const RETRY_MAX_MS = 10_000;
const RENEW_RETRY_MS = 60_000;
/** A server that has just started may not have its tokens and roles yet. */
const REFUSAL_PATIENCE_MS = 30_000;
/** A wrong token or CA, or a request that was denied, stays so. */
const FINAL = /^Cannot (trust|read join token|get certificate)/;
/** Timers of Node and clocks that jump: look at least once an hour. */
const RENEW_CHECK_MS = 3600_000;

/**
 * @throws Error where the token or its CA is wrong, or the node is refused for half a minute.
 * Failures that may
 * pass (no connection, no approval yet) are tried again until the signal aborts.
 */
export async function joinCluster(options: JoinOptions, signal: AbortSignal): Promise<NodeIdentity> {
  const { directory, clock, server } = options;
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const caCert = await retry(options, signal, () => ensureCa(options));
  const client = await retry(options, signal, () => ensureClientPair(options, caCert, signal));
  const open = (pair: KeyPair) =>
    createHttpsTransport({ server, caCert, clientCert: pair.cert, clientKey: pair.key, clock });
  const transport = replaceableTransport(open(client));
  const pairs: { client: KeyPair; serving?: KeyPair } = { client };
  return {
    caCert,
    transport,
    async serving(until) {
      pairs.serving = await retry(options, until, () =>
        ensureServingPair(options, caCert, transport, until),
      );
      return pairs.serving;
    },
    async keepFresh(onServing, until) {
      while (!until.aborted) {
        const certs = [pairs.client.cert, ...(pairs.serving ? [pairs.serving.cert] : [])];
        const dueMs = Math.min(...certs.map(renewAtMs));
        const waitMs = Math.min(RENEW_CHECK_MS, Math.max(0, dueMs - clock.nowMs()));
        await clock.sleep(waitMs, until).catch(() => {});
        if (until.aborted || clock.nowMs() < dueMs) continue;
        try {
          const client = createClient(transport, AGENT);
          const request = { ...requestOptions(options, until), client };
          if (clock.nowMs() >= renewAtMs(pairs.client.cert)) {
            pairs.client = await requestPair({ ...request, kind: 'client' });
            await transport.replace(open(pairs.client));
          }
          if (pairs.serving && clock.nowMs() >= renewAtMs(pairs.serving.cert)) {
            const names = splitHosts(options.hosts);
            pairs.serving = await requestPair({ ...request, kind: 'serving', names });
            onServing(pairs.serving);
          }
        } catch (error) {
          options.log.warn('certificate cannot be renewed', { error: describeError(error) });
          await clock.sleep(RENEW_RETRY_MS, until).catch(() => {});
        }
      }
    },
  };
}

const AGENT = { userAgent: 'kubelet' };

function requestOptions(options: JoinOptions, signal: AbortSignal) {
  const { directory, nodeName, clock } = options;
  return { directory, nodeName, clock, signal };
}

async function ensureCa({ directory, server, token, clock }: JoinOptions): Promise<string> {
  const { caSha256 } = parseJoinToken(token);
  const path = join(directory, 'ca.crt');
  const kept = await readFileIfExists(path);
  if (kept !== undefined && certificateSha256(kept) === caSha256) return kept;
  const caCert = await fetchPinnedCa(server, caSha256, { clock });
  await writeFileAtomic(path, caCert, { mode: 0o644, sync: true });
  return caCert;
}

async function ensureClientPair(
  options: JoinOptions,
  caCert: string,
  signal: AbortSignal,
): Promise<KeyPair> {
  const { directory, server, token, clock } = options;
  const kept = await loadPair(directory, 'client', caCert, clock.nowMs());
  if (kept) return kept;
  const { bearerToken } = parseJoinToken(token);
  const transport = createHttpsTransport({ server, caCert, token: bearerToken, clock });
  try {
    const client = createClient(transport, AGENT);
    return await requestPair({ ...requestOptions(options, signal), client, kind: 'client' });
  } finally {
    await transport.close();
  }
}

async function ensureServingPair(
  options: JoinOptions,
  caCert: string,
  transport: Transport,
  signal: AbortSignal,
): Promise<KeyPair> {
  const names = splitHosts(options.hosts);
  const kept = await loadPair(options.directory, 'serving', caCert, options.clock.nowMs());
  if (kept && coversNames(kept.cert, names)) return kept;
  const client = createClient(transport, AGENT);
  const request = requestOptions(options, signal);
  return requestPair({ ...request, client, kind: 'serving', names });
}

async function retry<T>(
  { clock, log }: JoinOptions,
  signal: AbortSignal,
  work: () => Promise<T>,
): Promise<T> {
  const beganMs = clock.monotonicMs();
  for (let delayMs = RETRY_MIN_MS; ; delayMs = Math.min(delayMs * 2, RETRY_MAX_MS)) {
    try {
      return await work();
    } catch (error) {
      const message = describeError(error);
      const isLate = clock.monotonicMs() - beganMs >= REFUSAL_PATIENCE_MS;
      const isFinal = (isRefusal(error) && isLate) || FINAL.test(message);
      if (isFinal || signal.aborted) throw error;
      log.warn('cluster cannot be joined yet', { error: message });
    }
    await clock.sleep(delayMs, signal);
  }
}

interface ReplaceableTransport extends Transport {
  /** Later requests go through `next`; those under way on the old one are broken off. */
  replace(next: Transport): Promise<void>;
}

function replaceableTransport(first: Transport): ReplaceableTransport {
  let current = first;
  return {
    request: (request) => current.request(request),
    close: () => current.close(),
    async replace(next) {
      const old = current;
      current = next;
      await old.close();
    },
  };
}
