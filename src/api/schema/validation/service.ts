import { isIP } from 'node:net';
import { dns1123Label, dns1123Subdomain, labelValue, qualifiedName } from '../../names.ts';
import { checkPortReference } from './containers.ts';
import { invalidIp } from './pod.ts';
import { fields, items, text, texts } from './report.ts';
import type { Fields, Report } from './report.ts';

const NODE_PORT_TYPES = new Set(['NodePort', 'LoadBalancer']);

export function checkServiceSpec(spec: Fields, report: Report): void {
  const type = text(spec['type']);
  const headless = spec['clusterIP'] === 'None';
  const ports = items(spec['ports']);
  if (ports.length === 0 && !headless && type !== 'ExternalName') report.at('ports').required();
  if (type === 'ExternalName') checkExternalName(spec, report);
  if (headless && NODE_PORT_TYPES.has(type)) {
    const detail = "may not be set to 'None' for LoadBalancer services";
    report
      .at('clusterIPs', 0)
      .invalid('None', type === 'NodePort' ? detail.replace('LoadBalancer', 'NodePort') : detail);
  }
  checkClusterIps(spec, report);
  checkPorts(ports, type, report.at('ports'));
  for (const [key, value] of Object.entries(fields(spec['selector']))) {
    report.at('selector').invalidAll(key, qualifiedName(key));
    report.at('selector').invalidAll(value, labelValue(String(value)));
  }
  texts(spec['externalIPs']).forEach((address, index) => {
    if (isIP(address) === 0) invalidIp(address, report.at('externalIPs', index));
  });
  if (
    spec['externalTrafficPolicy'] !== undefined &&
    !NODE_PORT_TYPES.has(type) &&
    texts(spec['externalIPs']).length === 0
  ) {
    report
      .at('externalTrafficPolicy')
      .invalid(spec['externalTrafficPolicy'], 'may only be set for externally-accessible services');
  }
}

function checkExternalName(spec: Fields, report: Report): void {
  const address = text(spec['clusterIP']);
  if (address !== '') report.at('clusterIPs').forbidden('may not be set for ExternalName services');
  const name = text(spec['externalName']);
  if (name === '') report.at('externalName').required();
  else report.at('externalName').invalidAll(name, dns1123Subdomain(name.replace(/\.$/, '')));
}

function checkClusterIps(spec: Fields, report: Report): void {
  const addresses = texts(spec['clusterIPs']);
  const first = text(spec['clusterIP']);
  const all = addresses.length > 0 ? addresses : first === '' ? [] : [first];
  if (addresses.length > 0 && first !== '' && addresses[0] !== first) {
    report.at('clusterIPs').invalid(addresses, 'first value must match `clusterIP`');
  }
  all.forEach((address, index) => {
    const at = report.at('clusterIPs', index);
    if (address === 'None' && all.length > 1)
      at.invalid(address, "'None' must be the first and only value");
    else if (address !== 'None' && address !== '' && isIP(address) === 0) invalidIp(address, at);
  });
}

function checkPorts(ports: Fields[], type: string, report: Report): void {
  const names = new Set<string>();
  const numbers = new Set<string>();
  ports.forEach((port, index) => {
    const at = report.at(index);
    const name = text(port['name']);
    if (name === '' && ports.length > 1) at.at('name').required();
    if (name !== '') {
      at.at('name').invalidAll(name, dns1123Label(name));
      if (names.has(name)) at.at('name').duplicate(name);
      names.add(name);
    }
    if (port['targetPort'] !== undefined)
      checkPortReference(port['targetPort'], at.at('targetPort'));
    if (port['nodePort'] && !NODE_PORT_TYPES.has(type)) {
      at.at('nodePort').forbidden(`may not be used when \`type\` is '${type}'`);
    }
    const key = `${text(port['protocol'])}/${String(port['port'])}`;
    if (numbers.has(key)) at.duplicate({ protocol: port['protocol'], port: port['port'] });
    numbers.add(key);
  });
}

export function checkIngressSpec(spec: Fields, report: Report): void {
  const rules = items(spec['rules']);
  if (rules.length === 0 && spec['defaultBackend'] === undefined) {
    report.invalid(spec, 'either `defaultBackend` or `rules` must be specified');
  }
  rules.forEach((rule, index) => {
    const host = text(rule['host']);
    const at = report.at('rules', index);
    if (host !== '') at.at('host').invalidAll(host, dns1123Subdomain(host.replace(/^\*\./, '')));
    if (isIP(host) !== 0) at.at('host').invalid(host, 'must be a DNS name, not an IP address');
    items(fields(rule['http'])['paths']).forEach((path, pathIndex) => {
      const value = text(path['path']);
      const pathAt = at.at('http', 'paths', pathIndex);
      if (path['pathType'] === undefined)
        pathAt.at('pathType').required('pathType must be specified');
      const absolute =
        value === '' ? path['pathType'] === 'ImplementationSpecific' : value.startsWith('/');
      if (!absolute) pathAt.at('path').invalid(value, 'must be an absolute path');
    });
  });
}
