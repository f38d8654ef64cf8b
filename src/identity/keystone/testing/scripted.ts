import { once } from 'node:events';
import { createServer } from 'node:net';
import type { AddressInfo, Socket } from 'node:net';
import type { KeystoneOptions } from '../options.ts';

/** What a scripted server sends back, byte for byte; undefined leaves the client waiting. */
export type Script = (request: {
  method: string;
  path: string;
  text: string;
}) => string | undefined;

export interface ScriptedServer {
  url: string;
  /** Request lines, in order. */
  requests: string[];
  script: Script;
  [Symbol.asyncDispose](): Promise<void>;
}

/** A server that says what a test wants said, true or not. Each answer ends its connection. */
export async function startScripted(script: Script): Promise<ScriptedServer> {
  const sockets = new Set<Socket>();
  const listener = createServer((socket) => {
    sockets.add(socket);
    let text = '';
    socket.on('error', () => {});
    socket.on('close', () => sockets.delete(socket));
    socket.on('data', (chunk) => {
      text += chunk.toString('latin1');
      const end = text.indexOf('\r\n\r\n');
      const length = Number(/content-length: (\d+)/i.exec(text)?.[1] ?? 0);
      if (end < 0 || text.length < end + 4 + length) return;
      const [method = '', path = ''] = text.split(' ');
      server.requests.push(`${method} ${path}`);
      const answer = server.script({ method, path, text });
      if (answer !== undefined) socket.end(answer, 'latin1');
    });
  });
  listener.listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const server: ScriptedServer = {
    url: `http://127.0.0.1:${(listener.address() as AddressInfo).port}/v3`,
    requests: [],
    script,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      listener.close();
      await once(listener, 'close');
    },
  };
  return server;
}

/** A whole answer in HTTP. */
export function reply(
  status: number,
  body: unknown = undefined,
  headers: Record<string, string> = {},
): string {
  const text = body === undefined ? '' : typeof body === 'string' ? body : JSON.stringify(body);
  const bytes = Buffer.from(text).toString('latin1');
  const all = { 'content-length': String(bytes.length), connection: 'close', ...headers };
  const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`);
  return `HTTP/1.1 ${status} X\r\n${lines.join('')}\r\n${bytes}`;
}

export const failure = (code: number, message = 'no') =>
  reply(code, { error: { code, message, title: 'T' } });

/** A token as Keystone tells of it. */
export function tokenBody(changes: Record<string, unknown> = {}, issuedAtMs = Date.now()) {
  const domain = { id: 'default', name: 'Default' };
  return {
    token: {
      methods: ['password'],
      user: { id: 'u1', name: 'alice', domain, password_expires_at: null },
      audit_ids: ['x'],
      issued_at: new Date(issuedAtMs).toISOString(),
      expires_at: new Date(issuedAtMs + 3_600_000).toISOString(),
      project: { id: 'p1', name: 'acme', domain },
      is_domain: false,
      roles: [{ id: 'r1', name: 'member' }],
      ...changes,
    },
  };
}

export const CREDENTIALS: KeystoneOptions['credentials'] = {
  ...{ kind: 'password', username: 'hypernetes', userDomain: 'Default', password: 'secret' },
  scope: { kind: 'project', project: 'service', domain: 'Default' },
};

/** Answers as a healthy Keystone does, but for the validation of tokens. */
export function healthy(validation: Script, issuedAtMs?: () => number): Script {
  return (request) => {
    const { method, path, text } = request;
    if (method === 'POST') {
      const headers = { 'x-subject-token': 'gAAAAservice' };
      return reply(201, tokenBody({}, issuedAtMs?.()), headers);
    }
    // The probe: the service user's token is asked about with itself.
    if (/x-subject-token: gAAAAservice/i.test(text)) return reply(200, tokenBody());
    if (path.startsWith('/v3/auth/tokens')) return validation(request);
    if (path.endsWith('/groups')) return reply(200, { groups: [] });
    return failure(403);
  };
}
