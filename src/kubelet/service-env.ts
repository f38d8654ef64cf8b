import type { Service } from '../api/types.generated.ts';

/**
 * The environment variables of Services, as Docker links once named them. `kubernetes` is told
 * by the endpoint the node knows; the others come from the pod's namespace.
 */
export interface ApiServerEndpoint {
  host: string;
  port: number;
}

export function serviceEnvironment(
  services: Iterable<Service>,
  apiServer: ApiServerEndpoint,
): Map<string, string> {
  const variables = new Map<string, string>();
  for (const service of services) {
    const { clusterIP = '', ports = [] } = service.spec ?? {};
    if (clusterIP === '' || clusterIP === 'None') continue;
    const named = ports.map((port) => ({
      name: port.name ?? '',
      port: port.port,
      protocol: port.protocol ?? 'TCP',
    }));
    addService(variables, service.metadata.name ?? '', clusterIP, named);
  }
  const port = { name: 'https', port: apiServer.port, protocol: 'TCP' };
  addService(variables, 'kubernetes', apiServer.host, [port]);
  return variables;
}

function addService(
  variables: Map<string, string>,
  serviceName: string,
  host: string,
  ports: { name: string; port: number; protocol: string }[],
): void {
  const first = ports[0];
  if (!first) return;
  const prefix = upper(serviceName);
  const address = host.includes(':') ? `[${host}]` : host;
  const url = (port: { port: number; protocol: string }) =>
    `${port.protocol.toLowerCase()}://${address}:${port.port}`;
  variables.set(`${prefix}_SERVICE_HOST`, host);
  variables.set(`${prefix}_SERVICE_PORT`, String(first.port));
  for (const port of ports) {
    if (port.name) variables.set(`${prefix}_SERVICE_PORT_${upper(port.name)}`, String(port.port));
  }
  variables.set(`${prefix}_PORT`, url(first));
  for (const port of ports) {
    const link = `${prefix}_PORT_${port.port}_${port.protocol.toUpperCase()}`;
    variables.set(link, url(port));
    variables.set(`${link}_PROTO`, port.protocol.toLowerCase());
    variables.set(`${link}_PORT`, String(port.port));
    variables.set(`${link}_ADDR`, host);
  }
}

function upper(name: string): string {
  return name.toUpperCase().replaceAll('-', '_');
}
