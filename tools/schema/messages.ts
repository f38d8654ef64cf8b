import type { Facts } from './facts.ts';

export type ProtobufFields = Record<string, Record<string, [number, string]>>;

/** `io.k8s.api.core.v1.Pod` → `k8s.io.api.core.v1.Pod`. */
export function messageName(typeName: string): string {
  return typeName.replace(/^io\.k8s\./, 'k8s.io.').replaceAll('-', '_');
}

/** Messages with the same fields under a version that the field list does not have. */
const SAME_AS: [string, string][] = [
  ['k8s.io.api.networking.v1.IPAddress', 'k8s.io.api.networking.v1beta1.IPAddress'],
  ['k8s.io.api.networking.v1.ParentReference', 'k8s.io.api.networking.v1beta1.ParentReference'],
  ['k8s.io.api.networking.v1.ServiceCIDR', 'k8s.io.api.networking.v1beta1.ServiceCIDR'],
  [
    'k8s.io.api.storage.v1.VolumeAttributesClass',
    'k8s.io.api.storage.v1beta1.VolumeAttributesClass',
  ],
];

/** Adds what the field list lacks: promoted versions, and the newer fields given by hand. */
export function completeFields(fields: ProtobufFields, supplement: ProtobufFields): ProtobufFields {
  const complete: ProtobufFields = { ...fields };
  for (const [target, source] of SAME_AS) {
    for (const [name, message] of Object.entries(fields)) {
      if (!name.startsWith(source)) continue;
      const renamed = target + name.slice(source.length);
      if (!complete[renamed]) complete[renamed] = renameReferences(message);
    }
  }
  for (const [name, message] of Object.entries(supplement)) {
    complete[name] = { ...complete[name], ...message };
  }
  return complete;
}

function renameReferences(message: Record<string, [number, string]>) {
  const renamed: Record<string, [number, string]> = {};
  for (const [field, [number, type]] of Object.entries(message)) {
    const promoted = SAME_AS.find(([, source]) => type.includes(source));
    renamed[field] = [number, promoted ? type.replace(promoted[1], promoted[0]) : type];
  }
  return renamed;
}

/**
 * The messages that the types reach. Field names become those of JSON; a message that Go embeds
 * (`volumeSource` in Volume) is marked `inline`, because its fields are the parent's in JSON.
 */
export function reachableMessages(
  types: Facts['types'],
  fields: ProtobufFields,
): Facts['messages'] {
  const messages: Facts['messages'] = {};
  const jsonNames = new Map<string, string[]>();
  for (const [typeName, type] of Object.entries(types)) {
    jsonNames.set(messageName(typeName), Object.keys(type.fields));
  }
  const visit = (name: string, names: string[] | undefined): void => {
    const message = fields[name];
    if (!message || messages[name]) return;
    const known = names ?? jsonNames.get(name);
    const converted: Record<string, [number, string]> = {};
    messages[name] = converted;
    for (const [field, [number, type]] of Object.entries(message)) {
      const jsonName = known?.find((entry) => entry.toLowerCase() === field.toLowerCase());
      const target = /^(?:\[\]|map<string>)?(k8s\.io\..*)$/.exec(type)?.[1];
      const inlined = known && jsonName === undefined && target !== undefined && !isTypeMeta(field);
      converted[jsonName ?? field] = [number, inlined ? `inline ${type}` : type];
      if (target) visit(target, inlined ? known : undefined);
    }
  };
  for (const typeName of Object.keys(types).sort()) visit(messageName(typeName), undefined);
  return Object.fromEntries(Object.entries(messages).sort(([a], [b]) => (a < b ? -1 : 1)));
}

function isTypeMeta(field: string): boolean {
  return field === 'apiVersion' || field === 'kind';
}
