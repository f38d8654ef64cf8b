import type { Container, EnvVar, Pod } from '../api/types.generated.ts';
import { ContainerConfigError } from './errors.ts';
import { expand } from './expansion.ts';
import { fieldValue, resourceValue } from './field-ref.ts';
import type { DownwardContext } from './field-ref.ts';
import type { ReferencedObjects } from './objects.ts';

/**
 * A container's own variables, in Kubernetes' order: Services, then `envFrom`, then `env`; a
 * later one replaces an earlier one of the same name. The image's come before all of them.
 * @throws ContainerConfigError CreateContainerConfigError for what is named and not there
 */
export async function containerEnvironment(
  container: Container,
  services: ReadonlyMap<string, string>,
  context: DownwardContext,
  objects: ReferencedObjects,
): Promise<Map<string, string>> {
  const variables = new Map(services);
  for (const [name, value] of await environmentFrom(container, context.pod, objects)) {
    variables.set(name, value);
  }
  for (const variable of container.env ?? []) {
    const value = variable.valueFrom
      ? await valueFrom(variable, container, context, objects)
      : expand(variable.value ?? '', variables);
    if (value !== undefined) variables.set(variable.name, value);
  }
  return variables;
}

async function environmentFrom(
  container: Container,
  pod: Pod,
  objects: ReferencedObjects,
): Promise<Map<string, string>> {
  const variables = new Map<string, string>();
  const namespace = pod.metadata.namespace ?? '';
  for (const source of container.envFrom ?? []) {
    const reference = source.configMapRef ?? source.secretRef;
    if (!reference?.name) continue;
    const data = source.configMapRef
      ? (await objects.configMap(namespace, reference.name))?.data
      : await secretData(objects, namespace, reference.name);
    if (!data) {
      const kind = source.configMapRef ? 'configmap' : 'secret';
      if (reference.optional || (await exists(objects, kind, namespace, reference.name))) continue;
      throw missing(`${kind} "${reference.name}" not found`);
    }
    for (const [key, value] of Object.entries(data)) {
      variables.set(`${source.prefix ?? ''}${key}`, value);
    }
  }
  return variables;
}

async function exists(
  objects: ReferencedObjects,
  kind: 'configmap' | 'secret',
  namespace: string,
  name: string,
): Promise<boolean> {
  const object =
    kind === 'secret'
      ? await objects.secret(namespace, name)
      : await objects.configMap(namespace, name);
  return object !== undefined;
}

async function valueFrom(
  variable: EnvVar,
  container: Container,
  context: DownwardContext,
  objects: ReferencedObjects,
): Promise<string | undefined> {
  const { fieldRef, resourceFieldRef, configMapKeyRef, secretKeyRef } = variable.valueFrom ?? {};
  const namespace = context.pod.metadata.namespace ?? '';
  if (fieldRef) {
    const value = fieldValue(fieldRef.fieldPath, context);
    if (value === undefined) throw missing(`unsupported fieldPath: ${fieldRef.fieldPath}`);
    return value;
  }
  if (resourceFieldRef) {
    const owner = findContainer(context.pod, resourceFieldRef.containerName) ?? container;
    const { resource, divisor } = resourceFieldRef;
    const value = resourceValue(resource, divisor, owner, context);
    if (value === undefined) throw missing(`unsupported container resource: ${resource}`);
    return value;
  }
  const reference = configMapKeyRef ?? secretKeyRef;
  if (!reference) return undefined;
  const { name = '', key } = reference;
  const kind = configMapKeyRef ? 'configmap' : 'secret';
  const data = configMapKeyRef
    ? (await objects.configMap(namespace, name))?.data
    : await secretData(objects, namespace, name);
  const value = data && Object.hasOwn(data, key) ? data[key] : undefined;
  if (value !== undefined || reference.optional) return value;
  if (!(await exists(objects, kind, namespace, name))) throw missing(`${kind} "${name}" not found`);
  const Kind = configMapKeyRef ? 'ConfigMap' : 'Secret';
  throw missing(`couldn't find key ${key} in ${Kind} ${namespace}/${name}`);
}

async function secretData(
  objects: ReferencedObjects,
  namespace: string,
  name: string,
): Promise<Record<string, string> | undefined> {
  const data = (await objects.secret(namespace, name))?.data;
  if (!data) return undefined;
  const decode = ([key, value]: [string, string]) =>
    [key, Buffer.from(value, 'base64').toString('utf8')] as const;
  return Object.fromEntries(Object.entries(data).map(decode));
}

export function findContainer(pod: Pod, name: string | undefined): Container | undefined {
  const all = [...(pod.spec?.containers ?? []), ...(pod.spec?.initContainers ?? [])];
  return all.find((each) => each.name === name);
}

function missing(message: string): ContainerConfigError {
  return new ContainerConfigError('CreateContainerConfigError', message);
}
