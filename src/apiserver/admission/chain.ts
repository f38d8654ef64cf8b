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
  /** The same object for every time that one write is judged; undefined when nothing is stored. */
  write: object | undefined;
  warn: (text: string) => void;
}

/** A request whose object is there, as in creations and updates. */
export type ObjectAdmissionRequest = AdmissionRequest & { object: KubeObject };

/**
 * One rule. `mutate` and `validate` are synchronous and may run more than once for one request,
 * since a write is computed again when another one was faster.
 */
export interface AdmissionPlugin {
  name: string;
  /** `resource.group` of what it looks at; undefined for everything. */
  resources?: string[];
  operations: Operation[];
  /** Subresources it looks at beside the object itself. @default none */
  subresources?: string[];
  /**
   * Runs once before a creation or a resize, and may wait: the only step that can. What it returns
   * is called once the object is stored, or is not going to be.
   */
  prepare?: (request: AdmissionRequest) => Promise<Release | void>;
  /** Completes the draft. Runs before validation. */
  mutate?: (request: ObjectAdmissionRequest) => void;
  /** Refuses by throwing a StatusError. Runs after validation and changes nothing. */
  validate?: (request: AdmissionRequest) => void;
  /** Runs once after a creation or update has been stored or has failed: the store knows which. */
  settle?: (request: SettledWrite) => void;
}

export type SettledWrite = Pick<AdmissionRequest, 'server' | 'write'>;

export type Release = () => void;

export interface AdmissionChain {
  prepare(request: AdmissionRequest): Promise<Release>;
  mutate(request: AdmissionRequest): void;
  validate(request: AdmissionRequest): void;
  settle(request: SettledWrite): void;
}

export function createAdmissionChain(plugins: readonly AdmissionPlugin[]): AdmissionChain {
  /** By resource, operation and subresource: which plugins concern them never changes. */
  const chosen = new Map<string, AdmissionPlugin[]>();
  const pluginsFor = (request: AdmissionRequest): AdmissionPlugin[] => {
    const { row, operation, subresource } = request;
    const key = `${row.resource}.${row.group} ${operation} ${subresource}`;
    let found = chosen.get(key);
    if (!found) chosen.set(key, (found = plugins.filter((plugin) => concerns(plugin, request))));
    return found;
  };
  return {
    async prepare(request) {
      const releases: Release[] = [];
      const release = () => {
        for (const one of releases.splice(0)) one();
      };
      try {
        for (const plugin of pluginsFor(request)) {
          const one = await plugin.prepare?.(request);
          if (one) releases.push(one);
        }
      } catch (error) {
        release();
        throw error;
      }
      return release;
    },
    mutate(request) {
      if (!hasObject(request)) return;
      for (const plugin of pluginsFor(request)) plugin.mutate?.(request);
    },
    validate(request) {
      for (const plugin of pluginsFor(request)) plugin.validate?.(request);
    },
    settle(write) {
      for (const plugin of plugins) plugin.settle?.(write);
    },
  };
}

function hasObject(request: AdmissionRequest): request is ObjectAdmissionRequest {
  return request.object !== undefined;
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
