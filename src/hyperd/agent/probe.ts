import { request as httpRequest } from 'node:http';
import type { IncomingMessage } from 'node:http';
import { isIP } from 'node:net';
import type { Duplex } from 'node:stream';
import { connect as tlsConnect } from 'node:tls';
import type { ProbeRequest, ProbeResult } from '../../api/hyperd.ts';
import type { Clock } from '../../base/clock.ts';
import { describeError } from '../../base/log.ts';
import { AgentError } from './agent.ts';

/**
 * TCP and HTTP probes. The connection is made inside the guest, the protocol is spoken here: the
 * guest's PID 1 needs no HTTP and no TLS. Results and words are the kubelet's
 * (pkg/probe/{tcp,http}).
 */

const RESPONSE_HEADER_BYTES_MAX = 16 * 1024;
const RESPONSE_BODY_BYTES_MAX = 10 * 1024;
const REDIRECTS_MAX = 10;
const USER_AGENT = 'kube-probe/1.35';

type Dial = (host: string, port: number, timeoutMs: number) => Promise<Duplex>;
type HttpProbe = Extract<ProbeRequest, { type: 'http' }>;

/** Never rejects, except when the session with the guest is over: then nothing was found out. */
export async function runProbe(
  request: ProbeRequest,
  clock: Clock,
  dial: Dial,
): Promise<ProbeResult> {
  try {
    if (request.type === 'tcp') return await probeTcp(request, dial);
    return await probeHttp(request, clock, dial);
  } catch (error) {
    if (error instanceof AgentError && error.reason === 'Closed') throw error;
    return { success: false, message: describeError(error) };
  }
}

async function probeTcp(
  request: Extract<ProbeRequest, { type: 'tcp' }>,
  dial: Dial,
): Promise<ProbeResult> {
  const connection = await dial(guestHost(request.host), request.port, request.timeoutMs);
  connection.destroy();
  return { success: true, message: '' };
}

async function probeHttp(request: HttpProbe, clock: Clock, dial: Dial): Promise<ProbeResult> {
  const deadlineMs = clock.monotonicMs() + request.timeoutMs;
  const host = urlHost(request.host === '' ? '127.0.0.1' : request.host);
  let url = new URL(`${request.scheme}://${host}:${request.port}`);
  const query = request.path.indexOf('?');
  url.pathname = query < 0 ? request.path : request.path.slice(0, query);
  if (query >= 0) url.search = request.path.slice(query);
  for (let redirects = 0; ; redirects += 1) {
    const leftMs = deadlineMs - clock.monotonicMs();
    const { status, location, body } = await get(url, request.headers, leftMs, clock, dial);
    if (status >= 300 && status < 400 && location !== undefined) {
      const next = new URL(location, url);
      // The kubelet takes a redirect to another host for a sign of life and does not follow it.
      if (next.hostname !== url.hostname || redirects === REDIRECTS_MAX) {
        return { success: true, message: `Probe terminated redirects, Response body: ${body}` };
      }
      url = next;
      continue;
    }
    if (status >= 200 && status < 400) return { success: true, message: body };
    return { success: false, message: `HTTP probe failed with statuscode: ${status}` };
  }
}

interface HttpAnswer {
  status: number;
  location: string | undefined;
  body: string;
}

async function get(
  url: URL,
  headers: HttpProbe['headers'],
  timeoutMs: number,
  clock: Clock,
  dial: Dial,
): Promise<HttpAnswer> {
  const prefix = `Get "${url.href}"`;
  const secure = url.protocol === 'https:';
  const port = Number(url.port) || (secure ? 443 : 80);
  let connection: Duplex | undefined;
  const late = new Error(`${prefix}: context deadline exceeded`);
  const failed = Promise.withResolvers<never>();
  const timer = clock.after(Math.max(timeoutMs, 1), () => failed.reject(late));
  try {
    const dialled = dial(guestHost(url.hostname), port, Math.max(timeoutMs, 1));
    dialled.catch(() => {});
    connection = await Promise.race([dialled, failed.promise]);
    const socket = secure
      ? tlsConnect({ socket: connection, rejectUnauthorized: false, servername: '' })
      : connection;
    return await Promise.race([exchange(url, headers, socket), failed.promise]);
  } catch (error) {
    if (error === late || (error instanceof AgentError && error.reason === 'Closed')) throw error;
    throw new Error(`${prefix}: ${describeError(error)}`);
  } finally {
    timer.cancel();
    connection?.destroy();
  }
}

function exchange(url: URL, headers: HttpProbe['headers'], socket: Duplex): Promise<HttpAnswer> {
  return new Promise((resolve, reject) => {
    socket.on('error', reject);
    const request = httpRequest({
      method: 'GET',
      path: `${url.pathname}${url.search}`,
      headers: headerList(url, headers),
      createConnection: () => socket,
      maxHeaderSize: RESPONSE_HEADER_BYTES_MAX,
      setHost: false,
    });
    request.on('error', reject);
    request.on('response', (response) => {
      const status = response.statusCode ?? 0;
      const { location } = response.headers;
      readBody(response).then((body) => resolve({ status, location, body }), reject);
    });
    request.end();
  });
}

/** The probe's own headers win over the defaults; a `Host` among them names the virtual host. */
function headerList(url: URL, headers: HttpProbe['headers']): Record<string, string | string[]> {
  const list: Record<string, string | string[]> = {};
  for (const { name, value } of headers) {
    const key = name.toLowerCase();
    const present = list[key];
    list[key] = present === undefined ? value : [present, value].flat();
  }
  list['host'] ??= url.host;
  list['user-agent'] ??= USER_AGENT;
  list['accept'] ??= '*/*';
  list['connection'] = 'close';
  return list;
}

async function readBody(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    chunks.push(chunk);
    size += chunk.length;
    if (size >= RESPONSE_BODY_BYTES_MAX) break;
  }
  return Buffer.concat(chunks).toString('utf8', 0, Math.min(size, RESPONSE_BODY_BYTES_MAX));
}

function urlHost(host: string): string {
  return isIP(host) === 6 ? `[${host}]` : host;
}

/** The guest knows addresses only. */
function guestHost(host: string): string {
  const bare = host.replace(/^\[|\]$/g, '');
  if (bare === '' || bare === 'localhost') return '';
  if (isIP(bare) === 0) throw new Error(`dial tcp: lookup ${bare}: wanted an IP address`);
  return bare;
}
