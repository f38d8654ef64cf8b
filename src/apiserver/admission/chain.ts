import type { UserInfo } from '../../api/auth.ts';
import type { KubeObject } from '../../api/object.ts';
import type { ResourceRow } from '../../api/schema/schema.ts';
import { StatusError, qualifiedResource } from '../../api/status.ts';
import type { ServerContext } from '../context.ts';

export type Operation = 'CREATE' | 'UPDATE' | 'DELETE' | 'CONNECT';

/** What admission judges. `object` is a draft in the request's version: plugins change it. */
export interface AdmissionRequest {
  server: ServerContext;
  operation: Operation;
  row: ResourceRow;
  subresource: string;
  namespace: string;
  name: string;
  user: UserInfo;
  object: KubeObject | undefined;
  /** The state before; undefined for a creation. Immutable. */
  oldObject: KubeObject | undefined;
  dryRun: boolean;
  warn: (text: string) => void;
}

/**
 * One rule. Both steps are synchronous and may run more than once for one request, since a write
 * is computed again when another one was faster.
 */
export interface AdmissionPlugin {
  name: string;
  /** `resource.group` of what it looks at; undefined for everything. */
  resources?: string[];
  operations: Operation[];
  /** Subresources it looks at beside the object itself. @default none */
  subresources?: string[];
  /** Completes the draft. Runs before validation. */
  mutate?: (request: AdmissionRequest) => void;
  /** Refuses by throwing a StatusError. Runs after validation and changes nothing. */
  validate?: (request: AdmissionRequest) => void;
}

export interface AdmissionChain {
  mutate(request: AdmissionRequest): void;
  validate(request: AdmissionRequest): void;
}

export function createAdmissionChain(plugins: readonly AdmissionPlugin[]): AdmissionChain {
  const chosen = (request: AdmissionRequest) =>
    plugins.filter((plugin) => concerns(plugin, request));
  return {
    mutate(request) {
      for (const plugin of chosen(request)) plugin.mutate?.(request);
    },
    validate(request) {
      for (const plugin of chosen(request)) plugin.validate?.(request);
    },
  };
}

function concerns(plugin: AdmissionPlugin, request: AdmissionRequest): boolean {
  if (!plugin.operations.includes(request.operation)) return false;
  const { subresource, row } = request;
  if (subresource && !plugin.subresources?.includes(subresource)) return false;
  return !plugin.resources || plugin.resources.includes(qualifiedResource(row.group, row.resource));
}

/** 403 in the words of Kubernetes' admission. */
export function forbidden(request: AdmissionRequest, why: string): StatusError {
  const { row, name } = request;
  const subject = `${qualifiedResource(row.group, row.resource)} ${JSON.stringify(name)}`;
  const details = { name, group: row.group, kind: row.resource };
  return new StatusError('Forbidden', `${subject} is forbidden: ${why}`, { details });
}
