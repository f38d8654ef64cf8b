import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { parseJoinToken } from '../auth/bootstrap-tokens.ts';
import { certificateSha256 } from '../auth/x509.ts';
import { splitHosts } from '../auth/pki.ts';
import type { Clock } from '../base/clock.ts';
import { readFileIfExists, writeFileAtomic } from '../base/files.ts';
import { describeError } from '../base/log.ts';
import type { Log } from '../base/log.ts';
import { isStatus } from '../api/status.ts';
import { createClient } from '../client/client.ts';
import type { Client } from '../client/client.ts';
import { createHttpsTransport, fetchPinnedCa } from '../client/https.ts';
import { NODES } from '../client/resources.ts';
import type { Transport } from '../client/transport.ts';
import {
  CertificateError,
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
  /**
   * How long a machine that is new waits for a server that does not answer. One that has joined
   * before waits for ever. @default for ever
   */
  connectPatienceMs?: number;
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

/** The longer it has taken, the less it matters: a tenth of that time is waited. */
const RETRY_FRACTION = 0.1;
const RETRY_MIN_MS = 25;
const RETRY_MAX_MS = 10_000;
const RENEW_RETRY_MS = 60_000;
/** A token that has just been made may not have reached every server yet. */
const REFUSAL_PATIENCE_MS = 2000;
/** Timers of Node and clocks that jump: look at least once an hour. */
const RENEW_CHECK_MS = 3600_000;

/** Trying again does not help; somebody has to put it right. The message says what. */
export class JoinError extends Error {
  override name = 'JoinError';
}

/**
 * @throws JoinError where the token, its CA or the node's name is wrong, and for a new machine
 * where the server does not answer in time. Other failures that may pass (no connection, no
 * approval yet) are tried again until the signal aborts.
 */
export async function joinCluster(
  options: JoinOptions,
  signal: AbortSignal,
): Promise<NodeIdentity> {
  const { directory, clock, server } = options;
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const giveUp = (error: unknown, elapsedMs: number) => finalError(options, error, elapsedMs);
  const caCert = await retry(options, signal, () => ensureCa(options), giveUp);
  const client = await retry(
    options,
    signal,
    () => ensureClientPair(options, caCert, signal),
    giveUp,
  );
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
  const { caSha256 } = readToken(token);
  const path = join(directory, 'ca.crt');
  const kept = await readFileIfExists(path);
  if (kept !== undefined && certificateSha256(kept) === caSha256) return kept;
  const caCert = await fetchPinnedCa(server, caSha256, { clock }).catch((error: Error) => {
    const [, why] = /^Cannot trust "[^"]*": (.*)/.exec(error.message) ?? [];
    if (!why) throw error;
    const hint = 'the token is of another cluster, or this is not its server';
    throw new JoinError(`Cannot join "${server}": ${why}; ${hint}`);
  });
  await writeFileAtomic(path, caCert, { mode: 0o644, sync: true });
  return caCert;
}

function readToken(token: string) {
  try {
    return parseJoinToken(token);
  } catch (error) {
    throw new JoinError((error as Error).message);
  }
}

async function ensureClientPair(
  options: JoinOptions,
  caCert: string,
  signal: AbortSignal,
): Promise<KeyPair> {
  const { directory, server, token, clock } = options;
  const kept = await loadPair(directory, 'client', caCert, clock.nowMs());
  if (kept) return kept;
  const { bearerToken } = readToken(token);
  const transport = createHttpsTransport({ server, caCert, token: bearerToken, clock });
  try {
    const client = createClient(transport, AGENT);
    await assertNameIsFree(client, options, signal);
    return await requestPair({ ...requestOptions(options, signal), client, kind: 'client' });
  } finally {
    await transport.close();
  }
}

/** Two machines of one name would take turns at being the node. */
async function assertNameIsFree(
  client: Client,
  { server, nodeName }: JoinOptions,
  signal: AbortSignal,
): Promise<void> {
  const found = await client.get(NODES, { name: nodeName }, { signal }).catch((error: unknown) => {
    if (isStatus(error, 'NotFound')) return undefined;
    throw error;
  });
  const ready = found?.status?.conditions?.find(({ type }) => type === 'Ready');
  if (ready?.status !== 'True') return;
  const hint = 'choose another with --node-name, or end that machine first';
  throw new JoinError(
    `Cannot join "${server}": a node "${nodeName}" is in the cluster and Ready: ${hint}`,
  );
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

/** Tries until it works, `giveUp` makes of a failure one that is final, or the signal aborts. */
async function retry<T>(
  options: JoinOptions,
  signal: AbortSignal,
  work: () => Promise<T>,
  giveUp: (error: unknown, elapsedMs: number) => Error | undefined = () => undefined,
): Promise<T> {
  const { clock, log } = options;
  const beganMs = clock.monotonicMs();
  let told = '';
  for (;;) {
    try {
      return await work();
    } catch (error) {
      const elapsedMs = clock.monotonicMs() - beganMs;
      const final = giveUp(error, elapsedMs);
      if (final || signal.aborted) throw final ?? error;
      const message = describeError(error);
      if (message !== told) log.warn('cluster cannot be joined yet', { error: message });
      told = message;
      const delayMs = Math.max(RETRY_MIN_MS, elapsedMs * RETRY_FRACTION);
      await clock.sleep(Math.min(delayMs, RETRY_MAX_MS), signal);
    }
  }
}

/** What ends the attempts after an error; undefined for one that may pass. */
function finalError(options: JoinOptions, error: unknown, elapsedMs: number): Error | undefined {
  const { server, connectPatienceMs = Number.POSITIVE_INFINITY } = options;
  if (error instanceof JoinError) return error;
  if (error instanceof CertificateError) return new JoinError(error.message);
  if (isRefusal(error)) {
    if (elapsedMs < REFUSAL_PATIENCE_MS) return undefined;
    const hint = 'make a new one with "hypernetes token create" on the server';
    const what = 'the server does not accept the token: it is wrong or has expired';
    return new JoinError(`Cannot join "${server}": ${what}; ${hint}`);
  }
  if (elapsedMs < connectPatienceMs) return undefined;
  const seconds = Math.round(elapsedMs / 1000);
  const why = describeError(error);
  return new JoinError(`Cannot join "${server}": no answer for ${seconds} s: ${why}`);
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
