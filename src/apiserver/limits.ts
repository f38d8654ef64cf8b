/** Bounds of what one client can make the API server hold, wait for or do. */
export interface ApiServerLimits {
  /** Largest request body, decompressed. kube-apiserver's limit, which clients know. */
  requestBodyBytes: number;
  /** From the end of the headers to the end of the body. Stops bodies that trickle. */
  requestBodyTimeoutMs: number;
  /** From the first byte to the end of the headers, on HTTP/1.1. */
  requestHeadersTimeoutMs: number;
  /** From accept to the end of the TLS handshake. */
  tlsHandshakeTimeoutMs: number;
  requestHeaderBytes: number;
  connectionCount: number;
  /** From one address. The pods of a node have one address in common. */
  connectionsPerAddress: number;
  /** Concurrent streams of one HTTP/2 connection; Go's client opens another one beyond it. */
  streamsPerConnection: number;
  /** A connection without a request is closed after this. */
  connectionIdleTimeoutMs: number;
  /** Requests that are being answered, streams and watches not counted. More get 429. */
  readsInFlight: number;
  writesInFlight: number;
  /**
   * Of these, how many may be one tenant's, or one user's without a tenant; half of it one user's
   * of a tenant. Service accounts of a namespace count as one user.
   */
  readsInFlightPerTenant: number;
  writesInFlightPerTenant: number;
  /** Requests to other APIs on the port, which know no users of ours. */
  mountsInFlight: number;
  /**
   * Fields and items of one object that a tenant writes, at all depths. Each is looked at, copied
   * and compared: a hundred thousand of them keep all other requests waiting for a second.
   */
  objectValuesPerTenant: number;
  /** Answers above this are compressed when the client takes gzip. */
  gzipThresholdBytes: number;
  /** A watch without `timeoutSeconds` ends at a random time between this and its double. */
  watchTimeoutMinMs: number;
  bookmarkIntervalMs: number;
  watches: number;
  watchesPerTenant: number;
  /** Who reads audit logs at the same time: it costs more than other reading. */
  auditReaders: number;
  auditReadersPerTenant: number;
  /** Lines of watches that are kept for the next watcher of the same objects. */
  watchLineBytes: number;
  /** A client that takes nothing of its answer for this long is cut off. */
  replyStallTimeoutMs: number;
  /** Objects that one delete-collection request removes at the same time. */
  deleteCollectionWorkers: number;
  /** Until the kubelet has accepted a connection and answered its first line. */
  kubeletConnectTimeoutMs: number;
  /** Running exec, attach, port-forward and log streams. */
  proxyStreams: number;
  proxyStreamsPerTenant: number;
  /** Events go so long after they were last seen: kube-apiserver's default. */
  eventLifetimeMs: number;
  eventsPerNamespace: number;
  eventBytesPerNamespace: number;
}

export const DEFAULT_LIMITS: ApiServerLimits = {
  requestBodyBytes: 3 * 1024 * 1024,
  requestBodyTimeoutMs: 30_000,
  requestHeadersTimeoutMs: 10_000,
  tlsHandshakeTimeoutMs: 10_000,
  requestHeaderBytes: 64 * 1024,
  connectionCount: 20_000,
  connectionsPerAddress: 5_000,
  streamsPerConnection: 250,
  connectionIdleTimeoutMs: 180_000,
  readsInFlight: 2_000,
  writesInFlight: 2_000,
  mountsInFlight: 200,
  readsInFlightPerTenant: 500,
  writesInFlightPerTenant: 250,
  objectValuesPerTenant: 10_000,
  gzipThresholdBytes: 128 * 1024,
  watchTimeoutMinMs: 30 * 60_000,
  bookmarkIntervalMs: 60_000,
  watches: 50_000,
  watchesPerTenant: 10_000,
  auditReaders: 32,
  auditReadersPerTenant: 4,
  watchLineBytes: 32 * 1024 * 1024,
  replyStallTimeoutMs: 60_000,
  deleteCollectionWorkers: 16,
  kubeletConnectTimeoutMs: 10_000,
  proxyStreams: 2_000,
  proxyStreamsPerTenant: 500,
  eventLifetimeMs: 3600_000,
  eventsPerNamespace: 10_000,
  eventBytesPerNamespace: 32 * 1024 * 1024,
};
