import { dns1123Label, environmentName, portName } from '../../names.ts';
import { compareQuantities } from '../../quantity.ts';
import { fields, items, text, texts } from './report.ts';
import type { Fields, Report } from './report.ts';

/** Fields of a pod that an environment variable may show; labels and annotations by key. */
const FIELD_REF =
  /^(?:metadata\.(?:name|namespace|uid|labels\['.+'\]|annotations\['.+'\])|spec\.(?:nodeName|serviceAccountName)|status\.(?:hostIPs?|podIPs?))$/;
const RESOURCE_FIELDS = [
  'limits.cpu',
  'limits.ephemeral-storage',
  'limits.memory',
  'requests.cpu',
  'requests.ephemeral-storage',
  'requests.memory',
];
const STANDARD_RESOURCES = new Set(['cpu', 'memory', 'ephemeral-storage', 'storage']);

/** What a container of any kind must have, given the names of the pod's volumes. */
export function checkContainer(
  container: Fields,
  volumes: ReadonlySet<string>,
  report: Report,
): void {
  const image = text(container['image']);
  if (image === '') report.at('image').required();
  else if (image !== image.trim()) {
    report.at('image').invalid(image, 'must not have leading or trailing whitespace');
  }
  checkPorts(container, report.at('ports'));
  items(container['env']).forEach((entry, index) => checkEnv(entry, report.at('env', index)));
  items(container['envFrom']).forEach((entry, index) =>
    checkEnvFrom(entry, report.at('envFrom', index)),
  );
  checkMounts(container, volumes, report.at('volumeMounts'));
  checkResources(fields(container['resources']), report.at('resources'));
  checkSecurity(fields(container['securityContext']), report.at('securityContext'));
}

/** Probes and hooks, which only containers that run on may have. */
export function checkRunningHooks(container: Fields, report: Report): void {
  for (const probe of ['livenessProbe', 'readinessProbe', 'startupProbe']) {
    const value = container[probe];
    if (value === undefined) continue;
    const at = report.at(probe);
    checkHandler(fields(value), at);
    const threshold = fields(value)['successThreshold'];
    if (probe !== 'readinessProbe' && threshold !== undefined && threshold !== 1) {
      at.at('successThreshold').invalid(threshold, 'must be 1');
    }
  }
  const lifecycle = fields(container['lifecycle']);
  for (const hook of ['postStart', 'preStop']) {
    if (lifecycle[hook] !== undefined)
      checkHandler(fields(lifecycle[hook]), report.at('lifecycle', hook));
  }
}

const HANDLERS = ['exec', 'httpGet', 'tcpSocket', 'grpc', 'sleep'];

function checkHandler(value: Fields, report: Report): void {
  const given = HANDLERS.filter((handler) => value[handler] !== undefined);
  if (given.length === 0) report.required('must specify a handler type');
  for (const extra of given.slice(1)) {
    report.at(extra).forbidden('may not specify more than 1 handler type');
  }
  const [handler] = given;
  if (handler === undefined) return;
  const details = fields(value[handler]);
  const at = report.at(handler);
  if (handler === 'exec' && texts(details['command']).length === 0) at.at('command').required();
  if (handler === 'httpGet' && text(details['path']) === '') at.at('path').required();
  if (handler === 'httpGet' || handler === 'tcpSocket')
    checkPortReference(details['port'], at.at('port'));
  if (handler === 'grpc') checkPortReference(details['port'], at.at('port'));
}

/** A port by number or by name. */
export function checkPortReference(port: unknown, report: Report): void {
  if (typeof port === 'string') report.invalidAll(port, portName(port));
  else if (typeof port !== 'number' || port < 1 || port > 65_535) {
    report.invalid(port ?? 0, 'must be between 1 and 65535, inclusive');
  }
}

function checkPorts(container: Fields, report: Report): void {
  const names = new Set<string>();
  items(container['ports']).forEach((port, index) => {
    const at = report.at(index);
    const name = text(port['name']);
    if (name !== '') {
      at.at('name').invalidAll(name, portName(name));
      if (names.has(name)) at.at('name').duplicate(name);
      names.add(name);
    }
    const number = port['containerPort'];
    if (!number) at.at('containerPort').required();
    else if (Number(number) < 1 || Number(number) > 65_535) {
      at.at('containerPort').invalid(number, 'must be between 1 and 65535, inclusive');
    }
  });
}

function checkEnv(entry: Fields, report: Report): void {
  const name = text(entry['name']);
  if (name === '') report.at('name').required();
  else report.at('name').invalidAll(name, environmentName(name));
  const source = entry['valueFrom'];
  if (source === undefined) return;
  const at = report.at('valueFrom');
  const given = Object.keys(fields(source));
  if (text(entry['value']) !== '') at.invalid('', 'may not be specified when `value` is not empty');
  if (given.length === 0) {
    at.invalid(
      '',
      'must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`',
    );
  } else if (given.length > 1)
    at.invalid('', 'may not have more than one field specified at a time');
  checkEnvSource(fields(source), at);
}

function checkEnvSource(source: Fields, report: Report): void {
  if (source['fieldRef'] !== undefined) {
    const path = text(fields(source['fieldRef'])['fieldPath']);
    const at = report.at('fieldRef', 'fieldPath');
    if (path === '') at.required();
    else if (!FIELD_REF.test(path))
      at.invalid(path, 'error converting fieldPath: field label not supported: ' + path);
  }
  if (source['resourceFieldRef'] !== undefined) {
    const resource = text(fields(source['resourceFieldRef'])['resource']);
    const at = report.at('resourceFieldRef', 'resource');
    const hugePages = /^(?:limits|requests)\.hugepages-/.test(resource);
    if (resource === '') at.required();
    else if (!hugePages && !RESOURCE_FIELDS.includes(resource))
      at.notSupported(resource, RESOURCE_FIELDS);
  }
  for (const kind of ['configMapKeyRef', 'secretKeyRef']) {
    if (source[kind] === undefined) continue;
    const reference = fields(source[kind]);
    if (text(reference['name']) === '') report.at(kind, 'name').required();
    if (text(reference['key']) === '') report.at(kind, 'key').required();
  }
}

function checkEnvFrom(entry: Fields, report: Report): void {
  const prefix = text(entry['prefix']);
  if (prefix !== '') report.at('prefix').invalidAll(prefix, environmentName(prefix));
  const given = ['configMapRef', 'secretRef'].filter((kind) => entry[kind] !== undefined);
  if (given.length === 0) report.invalid('', 'must specify one of: `configMapRef` or `secretRef`');
  if (given.length > 1) report.invalid('', 'may not have more than one field specified at a time');
  for (const kind of given) {
    if (text(fields(entry[kind])['name']) === '') report.at(kind, 'name').required();
  }
}

function checkMounts(container: Fields, volumes: ReadonlySet<string>, report: Report): void {
  const paths = new Set<string>();
  items(container['volumeMounts']).forEach((mount, index) => {
    const at = report.at(index);
    const name = text(mount['name']);
    if (name === '') at.at('name').required();
    else if (!volumes.has(name)) at.at('name').notFound(name);
    const path = text(mount['mountPath']);
    if (path === '') at.at('mountPath').required();
    if (paths.has(path)) at.at('mountPath').invalid(path, 'must be unique');
    paths.add(path);
    const subPath = text(mount['subPath']);
    checkRelativePath(subPath, at.at('subPath'));
    const expression = text(mount['subPathExpr']);
    if (expression !== '' && subPath !== '') {
      at.at('subPathExpr').invalid(expression, 'subPathExpr and subPath are mutually exclusive');
    }
    checkRelativePath(expression, at.at('subPathExpr'));
  });
}

/** Inside a volume: neither absolute nor climbing out. */
export function checkRelativePath(path: string, report: Report): void {
  if (path.startsWith('/')) report.invalid(path, 'must be a relative path');
  if (path.split('/').includes('..')) report.invalid(path, "must not contain '..'");
}

export function checkResources(resources: Fields, report: Report): void {
  const limits = fields(resources['limits']);
  const requests = fields(resources['requests']);
  for (const [side, values] of [
    ['limits', limits],
    ['requests', requests],
  ] as const) {
    for (const [name, value] of Object.entries(values)) {
      const at = report.at(side).key(name);
      if (!name.includes('/') && !STANDARD_RESOURCES.has(name) && !name.startsWith('hugepages-')) {
        at.invalid(name, 'must be a standard resource type or fully qualified');
      }
      if (compareQuantities(String(value), '0') < 0) {
        at.invalid(value, 'must be greater than or equal to 0');
      }
    }
  }
  for (const [name, request] of Object.entries(requests)) {
    const limit = limits[name];
    if (limit === undefined || compareQuantities(String(request), String(limit)) <= 0) continue;
    const detail = `must be less than or equal to ${name} limit of ${String(limit)}`;
    report.at('requests').invalid(request, detail);
  }
}

function checkSecurity(context: Fields, report: Report): void {
  if (context['allowPrivilegeEscalation'] !== false) return;
  if (context['privileged'] === true) {
    report.invalid(
      context,
      'cannot set `allowPrivilegeEscalation` to false and `privileged` to true',
    );
  }
  if (
    texts(fields(context['capabilities'])['add']).some((name) => /^(CAP_)?SYS_ADMIN$/.test(name))
  ) {
    report.invalid(
      context,
      'cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN',
    );
  }
}

/** A container's name: a label, and unlike any other in the pod. */
export function checkContainerName(container: Fields, taken: Set<string>, report: Report): void {
  const name = text(container['name']);
  const at = report.at('name');
  if (name === '') at.required();
  else {
    at.invalidAll(name, dns1123Label(name));
    if (taken.has(name)) at.duplicate(name);
  }
  taken.add(name);
}
