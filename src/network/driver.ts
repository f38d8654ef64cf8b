/**
 * What the node needs of a network: an isolated segment, and a place on it for one VM. The
 * implementations are `linux` (bridge and nftables in a network namespace), `fake`, and later
 * `neutron`; all of them pass `conformance.ts`.
 *
 * Every call is idempotent and is retried after a crash; `list` is the truth from which a
 * restarted daemon removes what nobody owns any more.
 */
export interface NetworkDriver {
  /** Makes sure that the network is there as described. */
  ensureNetwork(network: NetworkSpec, signal?: AbortSignal): Promise<void>;
  /** Removes a network without ports. Unknown ids are fine. @throws NetworkError InUse */
  deleteNetwork(networkId: string, signal?: AbortSignal): Promise<void>;
  /**
   * Gives a VM its place: an address and a tap device that its VMM may open. Asked again for a
   * port that is there it repairs what is missing and returns the same.
   */
  ensurePort(request: PortRequest, signal?: AbortSignal): Promise<Port>;
  /** Takes it back; nothing of it is left on the host. Unknown ids are fine. */
  deletePort(portId: string, signal?: AbortSignal): Promise<void>;
  list(signal?: AbortSignal): Promise<{ networks: NetworkSpec[]; ports: Port[] }>;
}

export interface NetworkSpec {
  /** 1 to 40 of [a-z0-9-]. */
  id: string;
  /** The range that this node hands out from, e.g. 10.88.0.0/24. */
  cidr: string;
  /** The address of the bridge, inside `cidr`. */
  gateway: string;
  /** 0 takes that of the uplink. */
  mtu: number;
  /** Whether pods reach the outside through address translation on this node. */
  nat: boolean;
}

export interface PortRequest {
  /** The pod's uid. */
  id: string;
  networkId: string;
  /** The user id under which the VMM will open the tap device. */
  ownerUid: number;
  /** Fixed address, where one is wanted; otherwise the driver chooses a free one. */
  address?: string;
}

export interface Port {
  id: string;
  networkId: string;
  /** Name of the network namespace (as `ip netns` knows it) in which the tap device lies. */
  netns: string;
  tapName: string;
  mac: string;
  /** With prefix length: 10.88.0.5/24. */
  address: string;
  gateway: string;
  mtu: number;
}

export type NetworkErrorReason = 'Invalid' | 'NotFound' | 'InUse' | 'Exhausted' | 'Failed';

/** A network or port that cannot be had. The message names it and what is in the way. */
export class NetworkError extends Error {
  override name = 'NetworkError';
  readonly reason: NetworkErrorReason;
  constructor(reason: NetworkErrorReason, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.reason = reason;
  }
}
