import { configKey, dns1123Subdomain } from '../../names.ts';
import { compareQuantities, quantityMillis } from '../../quantity.ts';
import { isCountedName, isQuotaName } from '../../quota.ts';
import { fields, items, text, texts } from './report.ts';
import type { Fields, Report } from './report.ts';

/** Data of a ConfigMap or Secret, names included. */
const DATA_BYTES_MAX = 1024 * 1024;
const PRIORITY_MAX = 1_000_000_000;
const RBAC_GROUP = 'rbac.authorization.k8s.io';
const ACCESS_MODES = ['ReadOnlyMany', 'ReadWriteMany', 'ReadWriteOnce', 'ReadWriteOncePod'];

export function checkConfigMap(map: Fields, report: Report): void {
  const data = fields(map['data']);
  const binary = fields(map['binaryData']);
  let size = 0;
  for (const [key, value] of Object.entries(data)) {
    report.at('data').key(key).invalidAll(key, configKey(key));
    if (Object.hasOwn(binary, key))
      report.at('data').key(key).invalid(key, `duplicate of key present in binaryData`);
    size += Buffer.byteLength(String(value));
  }
  for (const [key, value] of Object.entries(binary)) {
    report.at('binaryData').key(key).invalidAll(key, configKey(key));
    size += base64Bytes(String(value));
  }
  if (size > DATA_BYTES_MAX) report.tooLong(DATA_BYTES_MAX);
}

function base64Bytes(value: string): number {
  return (
    Math.floor((value.length * 3) / 4) - (value.endsWith('==') ? 2 : value.endsWith('=') ? 1 : 0)
  );
}

/** Keys that a Secret of a type must have: all of the first list, or one of the second. */
const SECRET_KEYS: Record<string, { all?: string[]; any?: string[] }> = {
  'kubernetes.io/tls': { all: ['tls.crt', 'tls.key'] },
  'kubernetes.io/dockerconfigjson': { all: ['.dockerconfigjson'] },
  'kubernetes.io/dockercfg': { all: ['.dockercfg'] },
  'kubernetes.io/ssh-auth': { all: ['ssh-privatekey'] },
  'kubernetes.io/basic-auth': { any: ['username', 'password'] },
};
const ACCOUNT_NAME = 'kubernetes.io/service-account.name';

export function checkSecret(secret: Fields, report: Report): void {
  const data = fields(secret['data']);
  let size = 0;
  for (const [key, value] of Object.entries(data)) {
    report.at('data').key(key).invalidAll(key, configKey(key));
    size += base64Bytes(String(value));
  }
  if (size > DATA_BYTES_MAX) report.at('data').tooLong(DATA_BYTES_MAX);
  const type = text(secret['type']);
  const wanted = SECRET_KEYS[type];
  for (const key of wanted?.all ?? []) {
    if (!Object.hasOwn(data, key)) report.at('data').key(key).required();
  }
  if (wanted?.any && !wanted.any.some((key) => Object.hasOwn(data, key))) {
    for (const key of wanted.any) report.at('data').key(key).required();
  }
  if (type === 'kubernetes.io/service-account-token') {
    const annotations = fields(fields(secret['metadata'])['annotations']);
    if (text(annotations[ACCOUNT_NAME]) === '')
      report.at('metadata', 'annotations').key(ACCOUNT_NAME).required();
  }
}

export function checkClaimSpec(spec: Fields, report: Report): void {
  const modes = texts(spec['accessModes']);
  checkAccessModes(modes, report);
  const storage = fields(fields(spec['resources'])['requests'])['storage'];
  const at = report.at('resources').key('storage');
  if (storage === undefined) at.required();
  else if (compareQuantities(String(storage), '0') <= 0)
    at.invalid(storage, 'must be greater than zero');
  const storageClass = text(spec['storageClassName']);
  if (storageClass !== '')
    report.at('storageClassName').invalidAll(storageClass, dns1123Subdomain(storageClass));
}

export function checkVolumeSpec(spec: Fields, report: Report): void {
  checkAccessModes(texts(spec['accessModes']), report);
  if (fields(spec['capacity'])['storage'] === undefined) report.at('capacity').required();
}

function checkAccessModes(modes: string[], report: Report): void {
  if (modes.length === 0) report.at('accessModes').required('at least 1 access mode is required');
  for (const mode of modes) {
    if (!ACCESS_MODES.includes(mode)) report.at('accessModes').notSupported(mode, ACCESS_MODES);
  }
  if (modes.includes('ReadWriteOncePod') && modes.length > 1) {
    report.at('accessModes').forbidden('may not use ReadWriteOncePod with other access modes');
  }
}

export function checkRole(role: Fields, report: Report, namespaced: boolean): void {
  items(role['rules']).forEach((rule, index) => {
    const at = report.at('rules', index);
    if (texts(rule['verbs']).length === 0) {
      at.at('verbs').required('verbs must contain at least one value');
    }
    const urls = texts(rule['nonResourceURLs']);
    if (urls.length > 0) {
      if (namespaced) {
        at.at('nonResourceURLs').invalid(
          urls,
          'namespaced rules cannot apply to non-resource URLs',
        );
      }
      if (texts(rule['apiGroups']).length + texts(rule['resources']).length > 0) {
        at.at('nonResourceURLs').invalid(
          urls,
          'rules cannot apply to both regular resources and non-resource URLs',
        );
      }
      return;
    }
    if (texts(rule['apiGroups']).length === 0) {
      at.at('apiGroups').required('resource rules must supply at least one api group');
    }
    if (texts(rule['resources']).length === 0) {
      at.at('resources').required('resource rules must supply at least one resource');
    }
  });
}

export function checkBinding(binding: Fields, report: Report, kinds: readonly string[]): void {
  const role = fields(binding['roleRef']);
  const at = report.at('roleRef');
  if (role['apiGroup'] !== RBAC_GROUP)
    at.at('apiGroup').notSupported(role['apiGroup'] ?? '', [RBAC_GROUP]);
  if (!kinds.includes(text(role['kind']))) at.at('kind').notSupported(role['kind'] ?? '', kinds);
  if (text(role['name']) === '') at.at('name').required();
  items(binding['subjects']).forEach((subject, index) => {
    checkSubject(subject, report.at('subjects', index));
  });
}

function checkSubject(subject: Fields, report: Report): void {
  if (text(subject['name']) === '') report.at('name').required();
  const account = subject['kind'] === 'ServiceAccount';
  const group = text(subject['apiGroup']);
  if (account) {
    if (text(subject['namespace']) === '') report.at('namespace').required();
    if (group !== '') report.at('apiGroup').notSupported(group, ['']);
  } else if (group !== RBAC_GROUP) report.at('apiGroup').notSupported(group, [RBAC_GROUP]);
}

export function checkEvent(event: Fields, report: Report): void {
  const namespace = text(fields(event['metadata'])['namespace']);
  const field = event['involvedObject'] === undefined ? 'regarding' : 'involvedObject';
  const involved = text(fields(event[field])['namespace']);
  // Objects without a namespace have their events in "default".
  if (
    involved === ''
      ? namespace === 'default' || namespace === 'kube-system'
      : involved === namespace
  )
    return;
  report.at(field, 'namespace').invalid(involved, 'does not match event.namespace');
}

export function checkPriorityClass(priority: Fields, report: Report): void {
  const name = text(fields(priority['metadata'])['name']);
  const known = name === 'system-node-critical' || name === 'system-cluster-critical';
  if (known) return;
  if (name.startsWith('system-')) {
    report
      .at('metadata', 'name')
      .forbidden("priority class names with 'system-' prefix are reserved for system use only");
  }
  if (Number(priority['value']) > PRIORITY_MAX) {
    report
      .at('value')
      .forbidden(`maximum allowed value of a user defined priority is ${PRIORITY_MAX}`);
  }
}

export function checkStorageClass(storageClass: Fields, report: Report): void {
  if (text(storageClass['provisioner']) === '') report.at('provisioner').required();
}

export function checkQuota(spec: Fields, report: Report): void {
  for (const [name, amount] of Object.entries(fields(spec['hard']))) {
    const at = report.at('hard').key(name);
    if (!isQuotaName(name)) at.invalid(name, 'must be a standard resource for quota');
    if (compareQuantities(String(amount), '0') < 0) {
      at.invalid(String(amount), 'must be greater than or equal to 0');
    } else if (isCountedName(name) && quantityMillis(String(amount)) % 1000 !== 0) {
      at.invalid(String(amount), 'must be an integer');
    }
  }
}
