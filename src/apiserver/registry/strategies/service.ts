import type { KubeObject } from '../../../api/object.ts';
import { invalid } from '../../../api/status.ts';
import type { ServerContext } from '../../context.ts';
import type { Strategy, StrategyContext } from '../strategy.ts';
import type { ServiceSpec } from './service-allocator.ts';

export const serviceStrategy: Strategy = {
  allowsCreateOnUpdate: true,
  returnsDeletedObject: true,
  prepareCreate(service, context) {
    service.status = { loadBalancer: {} };
    allocate(service, context);
  },
  prepareUpdate(service, old, context) {
    inherit(specOf(service), specOf(old));
    dropDependent(specOf(service), specOf(old));
    allocate(service, context);
  },
  settle: (uid, stored, server) =>
    server.services.settle(uid, stored, stored ? tenantOf(stored, server) : ''),
};

function tenantOf({ metadata }: KubeObject, { tenants }: ServerContext): string {
  return tenants.ofNamespace(metadata.namespace ?? '') ?? '';
}

function specOf(service: KubeObject): ServiceSpec {
  return (service.spec ?? {}) as ServiceSpec;
}

function allocate(service: KubeObject, { server }: StrategyContext): void {
  service.spec ??= {};
  const causes = server.services.assign(
    service.metadata.uid ?? '',
    specOf(service),
    tenantOf(service, server),
  );
  if (causes.length > 0) throw invalid('', 'Service', service.metadata.name ?? '', causes);
}

/** What the client's manifest leaves open stays as it was given. */
function inherit(spec: ServiceSpec, old: ServiceSpec): void {
  if (spec.type === 'ExternalName' || old.type === 'ExternalName') return;
  if (!spec.clusterIP && !spec.clusterIPs?.length) {
    if (old.clusterIP) spec.clusterIP = old.clusterIP;
    if (old.clusterIPs) spec.clusterIPs = [...old.clusterIPs];
  } else if (spec.clusterIP && !spec.clusterIPs?.length) spec.clusterIPs = [spec.clusterIP];
  if (spec.type === 'ClusterIP') {
    // Back from NodePort: the ports that the client merely sent along are given up.
    for (const port of spec.ports ?? []) {
      const isOld = old.ports?.some((other) => other.nodePort === port.nodePort);
      if (old.type !== 'ClusterIP' && isOld) delete port.nodePort;
    }
    return;
  }
  for (const port of spec.ports ?? []) {
    const same = old.ports?.find(
      (other) => other.port === port.port && (other.protocol ?? 'TCP') === (port.protocol ?? 'TCP'),
    );
    if (!port.nodePort && same?.nodePort) port.nodePort = same.nodePort;
  }
}

/** Fields that say something about services of these types alone. */
const DEPENDENT_FIELDS: Record<string, (keyof ServiceSpec)[]> = {
  LoadBalancer: ['allocateLoadBalancerNodePorts', 'loadBalancerClass'],
  NodePort: ['externalTrafficPolicy', 'healthCheckNodePort'],
};

/** When the type changes, what only the old one knew goes, unless the client sets it anew. */
function dropDependent(spec: ServiceSpec, old: ServiceSpec): void {
  if (spec.type === old.type) return;
  const dropped = spec.type === 'LoadBalancer' ? [] : [...(DEPENDENT_FIELDS.LoadBalancer ?? [])];
  const isExternal = spec.type === 'LoadBalancer' || spec.type === 'NodePort';
  if (!isExternal) dropped.push(...(DEPENDENT_FIELDS.NodePort ?? []));
  for (const field of dropped) if (spec[field] === old[field]) delete spec[field];
}
