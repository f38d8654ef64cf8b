/**
 * Why a pod's container cannot be brought about now. The reason goes into the container's
 * `state.waiting`, the message beside it and into an event; the kubelet tries again.
 */
export class ContainerConfigError extends Error {
  override name = 'ContainerConfigError';
  readonly reason: string;
  constructor(reason: string, message: string) {
    super(message);
    this.reason = reason;
  }
}

/** What a VM cannot give: the pod stays Pending and says so. */
export class UnsupportedError extends Error {
  override name = 'UnsupportedError';
}
