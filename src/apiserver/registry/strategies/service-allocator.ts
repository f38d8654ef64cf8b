import type { Random } from '../../../base/random.ts';
import type { KubeObject } from '../../../api/object.ts';
import type { StatusCause } from '../../../api/status.ts';

interface ServicePort {
  name?: string;
  port: number;
  protocol?: string;
  nodePort?: number;
}

export interface ServiceSpec {
  type?: string;
  clusterIP?: string;
  clusterIPs?: string[];
  ipFamilies?: string[];
  ipFamilyPolicy?: string;
  ports?: ServicePort[];
  allocateLoadBalancerNodePorts?: boolean;
  healthCheckNodePort?: number;
  externalTrafficPolicy?: string;
  loadBalancerClass?: string;
}

const NODE_PORT_MIN = 30_000;
const NODE_PORT_MAX = 32_767;
const HEADLESS = 'None';
const ALLOCATION_ATTEMPTS = 64;

/**
 * Gives out addresses and node ports. It is kept in memory, made from the services that exist;
 * what a write reserved is put right by `settle` once it is known what was stored.
 */
export interface ServiceAllocator {
  /**
   * Fills in what the spec leaves open. Calling it again for one uid gives the same.
   *
   * @param tenant whose addresses: each tenant has the whole range, and sees none of the others'
   */
  assign(uid: string, spec: ServiceSpec, tenant: string): StatusCause[];
  /** What the service now holds; undefined: it is gone, or was never stored. */
  settle(uid: string, stored: KubeObject | undefined, tenant: string): void;
}

interface Range {
  base: number;
  size: number;
  text: string;
}

export function createServiceAllocator(options: {
  cidr: string;
  /** What exists, each with its tenant. */
  services: Iterable<{ object: KubeObject; partition: string }>;
  random: Random;
}): ServiceAllocator {
  const range = parseCidr(options.cidr);
  const addresses = createPool(() => {
    // The lower part is left to those who ask for an address by name, as Kubernetes does.
    const staticCount = Math.min(256, Math.max(16, Math.floor(range.size / 16)));
    const low = range.size > staticCount * 2 ? staticCount : 1;
    const offset = low + Math.floor(options.random.next() * (range.size - 1 - low));
    return formatAddress(range.base + offset);
  });
  const ports = createPool(() =>
    String(NODE_PORT_MIN + Math.floor(options.random.next() * (NODE_PORT_MAX - NODE_PORT_MIN + 1))),
  );
  const settle = (uid: string, stored: KubeObject | undefined, tenant: string) => {
    const spec = (stored?.spec ?? {}) as ServiceSpec;
    const ips = (spec.clusterIPs ?? []).filter((ip) => ip !== HEADLESS);
    addresses.keep(
      uid,
      ips.map((ip) => owned(tenant, ip)),
    );
    ports.keep(uid, nodePortsOf(spec).map(String));
  };
  for (const { object, partition } of options.services) {
    settle(object.metadata.uid ?? '', object, partition);
  }
  return {
    settle,
    assign(uid, spec, tenant) {
      const own = poolOf(addresses, tenant);
      return [...assignAddress(uid, spec, range, own), ...assignPorts(uid, spec, ports)];
    },
  };
}

function assignAddress(uid: string, spec: ServiceSpec, range: Range, pool: Pool): StatusCause[] {
  if (spec.type === 'ExternalName') {
    for (const field of ['clusterIP', 'clusterIPs', 'ipFamilies', 'ipFamilyPolicy'] as const) {
      delete spec[field];
    }
    return [];
  }
  spec.ipFamilies = ['IPv4'];
  spec.ipFamilyPolicy = 'SingleStack';
  const wanted = spec.clusterIP || spec.clusterIPs?.[0];
  if (wanted && !pool.has(uid, wanted) && wanted !== HEADLESS) {
    const problem = addressProblem(wanted, range) ?? pool.take(uid, wanted);
    if (problem) {
      const list = `[]string{${JSON.stringify(wanted)}}`;
      const message = `Invalid value: ${list}: failed to allocate IP ${wanted}: ${problem}`;
      return [{ reason: 'FieldValueInvalid', field: 'spec.clusterIPs', message }];
    }
  }
  const given = wanted ?? pool.any(uid);
  if (!given) {
    const message = 'Internal error: failed to allocate a serviceIP: range is full';
    return [{ reason: 'InternalError', field: 'spec.clusterIPs', message }];
  }
  spec.clusterIP = given;
  spec.clusterIPs = [given];
  return [];
}

function addressProblem(address: string, range: Range): string | undefined {
  const value = parseAddress(address);
  const offset = value === undefined ? -1 : value - range.base;
  if (offset > 0 && offset < range.size - 1) return undefined;
  return (
    `the provided IP (${address}) is not in the valid range. ` +
    `The range of valid IPs is ${range.text}`
  );
}

function needsNodePorts(spec: ServiceSpec): boolean {
  if (spec.type === 'NodePort') return true;
  return spec.type === 'LoadBalancer' && spec.allocateLoadBalancerNodePorts !== false;
}

function nodePortsOf(spec: ServiceSpec): number[] {
  const ports = (spec.ports ?? []).map((port) => port.nodePort ?? 0);
  return [...ports, spec.healthCheckNodePort ?? 0].filter((port) => port > 0);
}

function assignPorts(uid: string, spec: ServiceSpec, pool: Pool): StatusCause[] {
  const causes: StatusCause[] = [];
  const mayHave = spec.type === 'NodePort' || spec.type === 'LoadBalancer';
  /** One node port may serve a port number once for each protocol. */
  const byPort = new Map<number, number>();
  spec.ports?.forEach((port, index) => {
    const field = `spec.ports[${index}].nodePort`;
    const refuse = (why: string) => {
      const message = `Invalid value: ${port.nodePort}: ${why}`;
      causes.push({ reason: 'FieldValueInvalid', field, message });
    };
    if (port.nodePort) {
      if (!mayHave) {
        const message = `Forbidden: may not be used when \`type\` is '${spec.type}'`;
        causes.push({ reason: 'FieldValueForbidden', field, message });
      } else if (port.nodePort < NODE_PORT_MIN || port.nodePort > NODE_PORT_MAX) {
        refuse(
          'provided port is not in the valid range. ' +
            `The range of valid ports is ${NODE_PORT_MIN}-${NODE_PORT_MAX}`,
        );
      } else if (pool.take(uid, String(port.nodePort))) {
        refuse('provided port is already allocated');
      }
    } else if (needsNodePorts(spec)) {
      const given = byPort.get(port.port) ?? Number(pool.any(uid, index));
      if (given) port.nodePort = given;
    }
    if (port.nodePort) byPort.set(port.port, port.nodePort);
  });
  return causes;
}

const owned = (tenant: string, value: string) => `${tenant}/${value}`;

/** The part of a pool that is one tenant's. */
function poolOf(pool: Pool, tenant: string): Pool {
  return {
    any: (uid, slot) => pool.any(uid, slot, tenant)?.slice(tenant.length + 1),
    take: (uid, value) => pool.take(uid, owned(tenant, value)),
    has: (uid, value) => pool.has(uid, owned(tenant, value)),
    keep: (uid, values) =>
      pool.keep(
        uid,
        values.map((value) => owned(tenant, value)),
      ),
  };
}

interface Pool {
  /** A free value; the same one when asked again with the same slot. */
  any(uid: string, slot?: number, tenant?: string): string | undefined;
  /** @returns what is wrong */
  take(uid: string, value: string): string | undefined;
  has(uid: string, value: string): boolean;
  /** Gives back everything but these. */
  keep(uid: string, values: string[]): void;
}

function createPool(draw: () => string): Pool {
  const owners = new Map<string, string>();
  const holdings = new Map<string, { values: Set<string>; slots: Map<number, string> }>();
  const holdingOf = (uid: string) => {
    let holding = holdings.get(uid);
    if (!holding) holdings.set(uid, (holding = { values: new Set(), slots: new Map() }));
    return holding;
  };
  const take = (uid: string, value: string): string | undefined => {
    const owner = owners.get(value);
    if (owner !== undefined && owner !== uid) return 'provided IP is already allocated';
    owners.set(value, uid);
    holdingOf(uid).values.add(value);
    return undefined;
  };
  return {
    take,
    has: (uid, value) => owners.get(value) === uid,
    any(uid, slot = 0, tenant) {
      const { slots } = holdingOf(uid);
      const known = slots.get(slot);
      if (known) return known;
      for (let attempt = 0; attempt < ALLOCATION_ATTEMPTS; attempt += 1) {
        const drawn = draw();
        const value = tenant === undefined ? drawn : owned(tenant, drawn);
        if (owners.has(value)) continue;
        take(uid, value);
        slots.set(slot, value);
        return value;
      }
      return undefined;
    },
    keep(uid, values) {
      for (const value of holdings.get(uid)?.values ?? []) {
        if (!values.includes(value)) owners.delete(value);
      }
      holdings.delete(uid);
      for (const value of values) take(uid, value);
    },
  };
}

export function parseCidr(text: string): Range {
  const [address = '', bits = ''] = text.split('/');
  const base = parseAddress(address);
  const length = Number(bits);
  if (base === undefined || !/^\d+$/.test(bits) || length < 8 || length > 29) {
    throw new RangeError(
      `cannot use the service range "${text}": it has to be an IPv4 CIDR between /8 and /29`,
    );
  }
  const size = 2 ** (32 - length);
  if (base % size !== 0) {
    throw new RangeError(`cannot use the service range "${text}": it has host bits set`);
  }
  return { base, size, text };
}

function parseAddress(text: string): number | undefined {
  const parts = text.split('.');
  if (parts.length !== 4) return undefined;
  let value = 0;
  for (const part of parts) {
    if (!/^(0|[1-9]\d{0,2})$/.test(part) || Number(part) > 255) return undefined;
    value = value * 256 + Number(part);
  }
  return value;
}

function formatAddress(value: number): string {
  return [24, 16, 8, 0].map((shift) => Math.floor(value / 2 ** shift) % 256).join('.');
}

/** The first address of a range: where the API server itself is found. */
export function firstAddress(cidr: string): string {
  return formatAddress(parseCidr(cidr).base + 1);
}
