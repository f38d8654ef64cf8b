/**
 * How a client reaches the API server. `https` goes over the network; `loopback` calls the
 * server in the same process and skips sockets and TLS, but nothing else: authentication (as the
 * user it was made for), authorization and admission are the server's in both.
 */
export interface Transport {
  request(request: ApiRequest): Promise<ApiResponse>;
  close(): Promise<void>;
}

export interface ApiRequest {
  method: string;
  /** Absolute path, escaped, without the query. */
  path: string;
  query?: Record<string, string | string[] | undefined>;
  headers?: Record<string, string>;
  body?: Uint8Array | string;
  signal?: AbortSignal;
}

export interface ApiResponse {
  status: number;
  headers: Record<string, string>;
  /** Reading it is the flow control. Breaking off the loop ends the request. */
  body: AsyncIterable<Uint8Array>;
}
