import {
  DEFAULT_HANDLER,
  KERNEL_ANNOTATION,
  kernelNameProblem,
  kernelOfHandler,
} from '../../api/kernels.ts';
import { TENANT_LABEL } from '../../api/tenancy.ts';
import { forbidden } from './chain.ts';
import type { AdmissionPlugin, AdmissionRequest, ObjectAdmissionRequest } from './chain.ts';

/**
 * Which kernel a pod boots is written into its annotation when it is made, and stays. Its own
 * annotation says so or, in that order, its runtime class and its namespace; else it is the default
 * of whatever node it comes to.
 */
export const podKernel: AdmissionPlugin = {
  name: 'PodKernel',
  resources: ['pods'],
  operations: ['CREATE', 'UPDATE'],
  subresources: ['status', 'binding'],
  mutate(request) {
    const { object, oldObject, operation, subresource } = request;
    const { [KERNEL_ANNOTATION]: given, ...annotations } = object.metadata.annotations ?? {};
    const before = oldObject?.metadata.annotations?.[KERNEL_ANNOTATION];
    if (operation === 'UPDATE' && !subresource && given !== undefined && given !== before) {
      throw refused(request, 'it is chosen when the pod is made and cannot be changed');
    }
    const kernel = operation === 'CREATE' ? chosenKernel(request, given) : before;
    if (kernel !== undefined) annotations[KERNEL_ANNOTATION] = kernel;
    if (object.metadata.annotations || kernel !== undefined) {
      object.metadata.annotations = annotations;
    }
  },
  validate(request) {
    const { object, operation, server, namespace } = request;
    const kernel = object?.metadata.annotations?.[KERNEL_ANNOTATION];
    if (operation !== 'CREATE' || kernel === undefined) return;
    // Who may use the class may use what it stands for: that is `TenantUse`'s to judge.
    if (kernel === kernelOfHandler(handlerOf(request as ObjectAdmissionRequest))) return;
    refuseUse(request, server.tenants.ofNamespace(namespace), kernel);
  },
};

/** The kernel of a namespace's pods that do not say. */
export const namespaceKernel: AdmissionPlugin = {
  name: 'NamespaceKernel',
  resources: ['namespaces'],
  operations: ['CREATE', 'UPDATE'],
  validate(request) {
    const { object, oldObject } = request;
    const kernel = object?.metadata.annotations?.[KERNEL_ANNOTATION];
    if (kernel === undefined) return;
    if (kernel === oldObject?.metadata.annotations?.[KERNEL_ANNOTATION]) return;
    checkName(request, kernel);
    refuseUse(request, object?.metadata.labels?.[TENANT_LABEL], kernel);
  },
};

function chosenKernel(request: ObjectAdmissionRequest, own: string | undefined) {
  if (own !== undefined) checkName(request, own);
  const handler = handlerOf(request);
  const ofClass = kernelOfHandler(handler);
  if (ofClass !== undefined || handler === DEFAULT_HANDLER) {
    if (own === undefined || own === ofClass) return ofClass;
    const kernel = ofClass === undefined ? "the node's default" : JSON.stringify(ofClass);
    throw refused(request, `it is ${JSON.stringify(own)}, and that of the runtime class ${kernel}`);
  }
  if (own !== undefined) return own;
  const key = { resource: 'namespaces', namespace: '', name: request.namespace };
  return request.server.store.get(key)?.object.metadata.annotations?.[KERNEL_ANNOTATION];
}

/** Empty where the pod names no runtime class. */
function handlerOf({ server, object }: ObjectAdmissionRequest): string {
  const name = (object.spec as { runtimeClassName?: string } | undefined)?.runtimeClassName;
  if (!name) return '';
  const key = { resource: 'node.k8s.io/runtimeclasses', namespace: '', name };
  const found = server.store.get(key)?.object as { handler?: string } | undefined;
  return found?.handler ?? '';
}

function checkName(request: AdmissionRequest, kernel: string): void {
  const problem = kernelNameProblem(kernel);
  if (problem) throw refused(request, problem);
}

/** Operators' own namespaces may have any; a tenant's what the tenant is allowed. */
function refuseUse(request: AdmissionRequest, tenant: string | undefined, kernel: string): void {
  if (!tenant || request.server.tenants.allowedNames(tenant, 'kernels')?.includes(kernel)) return;
  throw refused(request, `the tenant may not use "${kernel}"`);
}

function refused(request: AdmissionRequest, why: string) {
  return forbidden(request, `metadata.annotations[${KERNEL_ANNOTATION}]: ${why}`);
}
