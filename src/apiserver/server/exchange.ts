import type { Duplex } from 'node:stream';
import type { AuthenticationRequest, UserInfo } from '../../api/auth.ts';

/** One request, wherever it came from: HTTP/2, HTTP/1.1, an upgrade, or the loopback. */
export interface ApiExchange {
  method: string;
  /** As sent: escaped, without the query. */
  path: string;
  /** As sent, without the question mark. */
  rawQuery: string;
  query: URLSearchParams;
  /** Lower-case names; repeated ones joined as HTTP says. */
  headers: Record<string, string | undefined>;
  body: AsyncIterable<Uint8Array>;
  /** Aborts when the client has gone or the server closes. */
  signal: AbortSignal;
  /** What the connection proves. The bearer token is read from the headers. */
  clientCertificate: AuthenticationRequest['clientCertificate'];
  /** Set when the certificate shown is not one of ours, or not valid now. */
  clientCertificateError: string | undefined;
  /** Set by the loopback only: who asks is settled by the one who made the transport. */
  user: UserInfo | undefined;
  remoteAddress: string;
  /** For requests that ask to leave HTTP; answers to others cannot take the socket over. */
  upgradable: boolean;
}

export type ReplyBody = Uint8Array | AsyncIterable<Uint8Array>;

export interface ApiReply {
  status: number;
  headers: Record<string, string | string[]>;
  body: ReplyBody;
  /** For streamed bodies that are big and do not wait: lists, but never watches. */
  compressible?: boolean;
  /**
   * Set on answers to an upgrade. Called with the raw connection and what was already read of
   * it; from then on the connection is the callee's, who has to end it.
   */
  takeOver?: (socket: Duplex, head: Buffer) => void;
}

export const EMPTY = new Uint8Array(0);
