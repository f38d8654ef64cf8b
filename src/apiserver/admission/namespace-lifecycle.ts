import { notFound } from '../../api/status.ts';
import { StatusError } from '../../api/status.ts';
import { forbidden } from './chain.ts';
import type { AdmissionPlugin } from './chain.ts';

/** Without these the cluster does not work; the system makes them anew in vain. */
const IMMORTAL = new Set(['default', 'kube-system', 'kube-public']);

/** Nothing is created in a namespace that is not there or is on its way out. */
export const namespaceLifecycle: AdmissionPlugin = {
  name: 'NamespaceLifecycle',
  operations: ['CREATE', 'DELETE'],
  mutate(request) {
    const { namespace, operation, server, row } = request;
    if (operation !== 'CREATE' || !namespace || !row.namespaced) return;
    const key = { resource: 'namespaces', namespace: '', name: namespace };
    const found = server.store.get(key)?.object;
    if (!found) throw notFound('', 'namespaces', namespace);
    const { phase } = (found.status ?? {}) as { phase?: string };
    if (!found.metadata.deletionTimestamp && phase !== 'Terminating') return;
    const why =
      `unable to create new content in namespace ${namespace} ` + 'because it is being terminated';
    const error = forbidden(request, why);
    const message = `namespace ${namespace} is being terminated`;
    const causes = [{ reason: 'NamespaceTerminating', message, field: 'metadata.namespace' }];
    throw new StatusError('Forbidden', error.message, { details: { ...error.details, causes } });
  },
  validate(request) {
    const { operation, row, name } = request;
    const isNamespace = row.group === '' && row.resource === 'namespaces';
    if (operation !== 'DELETE' || !isNamespace || !IMMORTAL.has(name)) return;
    throw forbidden(request, 'this namespace may not be deleted');
  },
};
