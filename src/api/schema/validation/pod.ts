import { isIP } from 'node:net';
import {
  configKey,
  dns1123Label,
  dns1123Subdomain,
  labelValue,
  qualifiedName,
} from '../../names.ts';
import { compareQuantities } from '../../quantity.ts';
import {
  checkContainer,
  checkContainerName,
  checkRelativePath,
  checkRunningHooks,
} from './containers.ts';
import { fields, items, text, texts } from './report.ts';
import type { Fields, Report } from './report.ts';

const NAMESERVERS_MAX = 3;
const SEARCHES_MAX = 32;

/** A pod's spec, alone or in a template. */
export function checkPodSpec(spec: Fields, report: Report): void {
  const volumes = checkVolumes(spec, report.at('volumes'));
  const names = new Set<string>();
  items(spec['initContainers']).forEach((container, index) => {
    const at = report.at('initContainers', index);
    checkContainerName(container, names, at);
    checkContainer(container, volumes, at);
    checkInitContainer(container, at);
  });
  const containers = items(spec['containers']);
  if (containers.length === 0) report.at('containers').required();
  containers.forEach((container, index) => {
    const at = report.at('containers', index);
    checkContainerName(container, names, at);
    checkContainer(container, volumes, at);
    checkRunningHooks(container, at);
    checkHostPorts(container, spec['hostNetwork'] === true, at);
    checkResizePolicy(container, spec['restartPolicy'] === 'Never', at.at('resizePolicy'));
  });
  items(spec['ephemeralContainers']).forEach((container, index) => {
    const at = report.at('ephemeralContainers', index);
    checkContainerName(container, names, at);
    checkContainer(container, volumes, at);
  });
  checkHostPortConflicts(containers, report);
  checkNames(spec, report);
  checkDns(spec, report);
  items(spec['tolerations']).forEach((entry, index) => {
    checkToleration(entry, report.at('tolerations', index));
  });
}

function checkInitContainer(container: Fields, report: Report): void {
  if (container['restartPolicy'] === 'Always') {
    checkRunningHooks(container, report);
    return;
  }
  for (const field of ['lifecycle', 'livenessProbe', 'readinessProbe', 'startupProbe']) {
    if (container[field] === undefined) continue;
    report.at(field).forbidden('may not be set for init containers without restartPolicy=Always');
  }
}

function checkHostPorts(container: Fields, hostNetwork: boolean, report: Report): void {
  if (!hostNetwork) return;
  items(container['ports']).forEach((port, index) => {
    if (port['hostPort'] === port['containerPort']) return;
    const at = report.at('ports', index, 'containerPort');
    at.invalid(port['containerPort'], 'must match `hostPort` when `hostNetwork` is true');
  });
}

function checkHostPortConflicts(containers: Fields[], report: Report): void {
  const taken = new Set<string>();
  containers.forEach((container, at) => {
    items(container['ports']).forEach((port, index) => {
      if (!port['hostPort']) return;
      const key = `${text(port['protocol'])}/${text(port['hostIP'])}/${String(port['hostPort'])}`;
      if (taken.has(key)) report.at('containers', at, 'ports', index, 'hostPort').duplicate(key);
      taken.add(key);
    });
  });
}

function checkNames(spec: Fields, report: Report): void {
  const grammars: [string, (name: string) => string[]][] = [
    ['hostname', dns1123Label],
    ['subdomain', dns1123Label],
    ['serviceAccountName', dns1123Subdomain],
    ['nodeName', dns1123Subdomain],
    ['priorityClassName', dns1123Subdomain],
    ['runtimeClassName', dns1123Subdomain],
    ['schedulerName', qualifiedName],
  ];
  for (const [field, grammar] of grammars) {
    const value = text(spec[field]);
    if (value !== '') report.at(field).invalidAll(value, grammar(value));
  }
  for (const [key, value] of Object.entries(fields(spec['nodeSelector']))) {
    report.at('nodeSelector').invalidAll(key, qualifiedName(key));
    report.at('nodeSelector').invalidAll(value, labelValue(String(value)));
  }
  items(spec['hostAliases']).forEach((alias, index) => {
    const ip = text(alias['ip']);
    if (isIP(ip) === 0) invalidIp(ip, report.at('hostAliases', index, 'ip'));
    for (const name of texts(alias['hostnames'])) {
      report.at('hostAliases', index, 'hostnames').invalidAll(name, dns1123Subdomain(name));
    }
  });
}

export function invalidIp(value: string, report: Report): void {
  report.invalid(value, 'must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)');
}

function checkDns(spec: Fields, report: Report): void {
  const config = fields(spec['dnsConfig']);
  const at = report.at('dnsConfig');
  const nameservers = texts(config['nameservers']);
  if (spec['dnsPolicy'] === 'None' && nameservers.length === 0) {
    at.at('nameservers').required(
      'must provide at least one DNS nameserver when `dnsPolicy` is None',
    );
  }
  if (nameservers.length > NAMESERVERS_MAX) {
    at.at('nameservers').invalid(
      nameservers,
      `must not have more than ${NAMESERVERS_MAX} nameservers`,
    );
  }
  nameservers.forEach((address, index) => {
    if (isIP(address) === 0) invalidIp(address, at.at('nameservers', index));
  });
  const searches = texts(config['searches']);
  if (searches.length > SEARCHES_MAX) {
    at.at('searches').invalid(searches, `must not have more than ${SEARCHES_MAX} search paths`);
  }
  items(config['options']).forEach((option, index) => {
    if (text(option['name']) === '') at.at('options', index).required('must not be empty');
  });
}

function checkToleration(toleration: Fields, report: Report): void {
  const key = text(toleration['key']);
  const operator = toleration['operator'];
  if (key !== '') report.at('key').invalidAll(key, qualifiedName(key));
  else if (operator !== 'Exists') {
    report
      .at('operator')
      .invalid(
        operator ?? '',
        'operator must be Exists when `key` is empty, which means "match all values and all keys"',
      );
  }
  if (operator === 'Exists' && text(toleration['value']) !== '') {
    report
      .at('operator')
      .invalid(toleration['value'], "value must be empty when `operator` is 'Exists'");
  }
  if (toleration['tolerationSeconds'] !== undefined && toleration['effect'] !== 'NoExecute') {
    report
      .at('effect')
      .invalid(
        toleration['effect'] ?? '',
        "effect must be 'NoExecute' when `tolerationSeconds` is set",
      );
  }
}

function checkResizePolicy(container: Fields, isNever: boolean, report: Report): void {
  const names = new Set<string>();
  items(container['resizePolicy']).forEach((policy, index) => {
    const name = text(policy['resourceName']);
    const at = report.at(index);
    if (names.has(name)) at.duplicate(name);
    names.add(name);
    const restart = text(policy['restartPolicy']);
    if (!isNever || restart === 'NotRequired') return;
    at.invalid(restart, "must be 'NotRequired' when `restartPolicy` is 'Never'");
  });
}

/** Checks the volumes and returns their names. */
function checkVolumes(spec: Fields, report: Report): Set<string> {
  const names = new Set<string>();
  items(spec['volumes']).forEach((volume, index) => {
    const at = report.at(index);
    const name = text(volume['name']);
    if (name === '') at.at('name').required();
    else at.at('name').invalidAll(name, dns1123Label(name));
    if (names.has(name)) at.at('name').duplicate(name);
    names.add(name);
    const sources = Object.keys(volume).filter((field) => field !== 'name');
    if (sources.length === 0) at.required('must specify a volume type');
    for (const extra of sources.slice(1)) {
      at.at(extra).forbidden('may not specify more than 1 volume type');
    }
    const [source] = sources;
    if (source !== undefined) VOLUME_CHECKS[source]?.(fields(volume[source]), at.at(source));
  });
  return names;
}

function requires(field: string) {
  return (source: Fields, report: Report): void => {
    if (text(source[field]) === '') report.at(field).required();
  };
}

function keyed(nameField: string) {
  return (source: Fields, report: Report): void => {
    if (text(source[nameField]) === '') report.at(nameField).required();
    checkKeyItems(source, report);
  };
}

function checkKeyItems(source: Fields, report: Report): void {
  items(source['items']).forEach((item, index) => {
    const at = report.at('items', index);
    const key = text(item['key']);
    if (key === '') at.at('key').required();
    else at.at('key').invalidAll(key, configKey(key));
    const path = text(item['path']);
    if (path === '') at.at('path').required();
    checkRelativePath(path, at.at('path'));
  });
}

function checkDownwardItems(source: Fields, report: Report): void {
  items(source['items']).forEach((item, index) => {
    const at = report.at('items', index, 'path');
    if (text(item['path']) === '') at.required();
    checkRelativePath(text(item['path']), at);
  });
}

const VOLUME_CHECKS: Record<string, (source: Fields, report: Report) => void> = {
  secret: keyed('secretName'),
  configMap: keyed('name'),
  persistentVolumeClaim: requires('claimName'),
  hostPath: (source, report) => {
    const path = text(source['path']);
    if (path === '') report.at('path').required();
    if (path.split('/').includes('..')) report.at('path').invalid(path, "must not contain '..'");
  },
  nfs: (source, report) => {
    requires('server')(source, report);
    requires('path')(source, report);
    const path = text(source['path']);
    if (path !== '' && !path.startsWith('/'))
      report.at('path').invalid(path, 'must be an absolute path');
  },
  csi: requires('driver'),
  image: requires('reference'),
  emptyDir: (source, report) => {
    const limit = source['sizeLimit'];
    if (limit !== undefined && compareQuantities(String(limit), '0') < 0) {
      report.at('sizeLimit').invalid(limit, 'SizeLimit field must be a valid resource quantity');
    }
    const medium = text(source['medium']);
    if (medium !== '' && medium !== 'Memory' && !medium.startsWith('HugePages')) {
      report.at('medium').notSupported(medium, ['', 'HugePages', 'Memory']);
    }
  },
  downwardAPI: checkDownwardItems,
  projected: (source, report) => {
    items(source['sources']).forEach((entry, index) => {
      const at = report.at('sources', index);
      const given = Object.keys(entry);
      for (const extra of given.slice(1)) {
        at.at(extra).forbidden('may not specify more than 1 volume type');
      }
      for (const kind of ['secret', 'configMap']) {
        if (entry[kind] !== undefined) keyed('name')(fields(entry[kind]), at.at(kind));
      }
      for (const kind of ['serviceAccountToken', 'clusterTrustBundle']) {
        if (entry[kind] === undefined) continue;
        requires('path')(fields(entry[kind]), at.at(kind));
        checkRelativePath(text(fields(entry[kind])['path']), at.at(kind, 'path'));
      }
      if (entry['downwardAPI'] !== undefined) {
        checkDownwardItems(fields(entry['downwardAPI']), at.at('downwardAPI'));
      }
    });
  },
};
