import type { IncomingMessage } from 'node:http';
import type { TLSSocket } from 'node:tls';
import type { Authenticate, Principal } from './index.ts';

/** HTTP basic authentication. `verify` gets what was sent and compares it in constant time. */
export function authenticateBasic(
  verify: (username: string, password: string) => Promise<Principal | undefined>,
): Authenticate {
  return async (request) => {
    const match = /^Basic +([A-Za-z0-9+/=]{1,4096})$/i.exec(request.headers.authorization ?? '');
    if (!match) return undefined;
    const pair = Buffer.from(match[1] as string, 'base64').toString('utf8');
    const colon = pair.indexOf(':');
    return colon < 0 ? undefined : verify(pair.slice(0, colon), pair.slice(colon + 1));
  };
}

/** The subject of a client certificate that the listener's `clientCa` has signed. */
export interface CertificateSubject {
  commonName: string;
  organizations: string[];
}

/** Authentication by client certificate; the listener needs `tls.clientCa`. */
export function authenticateCertificate(
  judge: (subject: CertificateSubject) => Principal | undefined,
): Authenticate {
  return (request: IncomingMessage) => {
    const socket = request.socket as TLSSocket;
    if (!socket.authorized) return Promise.resolve(undefined);
    const subject = socket.getPeerCertificate().subject as
      Record<string, string | string[] | undefined> | undefined;
    const commonName = subject?.['CN'];
    if (typeof commonName !== 'string') return Promise.resolve(undefined);
    const organizations = [subject?.['O'] ?? []].flat();
    return Promise.resolve(judge({ commonName, organizations }));
  };
}
