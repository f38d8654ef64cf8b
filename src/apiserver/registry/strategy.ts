import type { UserInfo } from '../../api/auth.ts';
import type { KubeObject } from '../../api/object.ts';
import type { ResourceRow } from '../../api/schema/schema.ts';
import { qualifiedResource } from '../../api/status.ts';
import type { StatusCause } from '../../api/status.ts';
import type { ServerContext } from '../context.ts';
import { STRATEGIES } from './strategies/table.ts';

/** What a hook may look at beside the objects. */
export interface StrategyContext {
  server: ServerContext;
  user: UserInfo;
  subresource: string;
  dryRun: boolean;
  warn: (text: string) => void;
}

export type PropagationPolicy = 'Background' | 'Foreground' | 'Orphan';

/**
 * What is special about a kind. Everything has a default, which most kinds keep. Hooks get drafts
 * in the request's version and change them in place; they may run more than once for one write.
 */
export interface Strategy {
  /** `metadata.generation` counts changes of everything but metadata and status. */
  hasGeneration?: boolean;
  /** The creator may set the status, instead of its being reset. */
  keepsStatusOnCreate?: boolean;
  /** A write of the status may change labels and annotations too. */
  statusWritesMetadata?: boolean;
  /** PUT of an object that is not there creates it. */
  allowsCreateOnUpdate?: boolean;
  /** PUT has to name the resourceVersion it replaces. */
  needsResourceVersion?: boolean;
  /** DELETE answers with the object instead of a Status. */
  returnsDeletedObject?: boolean;
  /** @default 'Background' */
  defaultPropagation?: PropagationPolicy;
  /** Told to those whose deletion is silent about dependents. */
  propagationWarning?: string;
  /** Fields, as dotted paths, that never change, beside those that validation knows of. */
  immutable?: string[];
  /** Subresources that may change what updates may not, and their own rules instead. */
  subresourceRules?: Record<string, (draft: KubeObject, old: KubeObject) => StatusCause[]>;
  prepareCreate?: (draft: KubeObject, context: StrategyContext) => void;
  /** Not run for writes of the status. */
  prepareUpdate?: (draft: KubeObject, old: KubeObject, context: StrategyContext) => void;
  /** How long a deletion waits for whoever ends the object's work; undefined: it does not. */
  graceSeconds?: (object: KubeObject, requested: number | undefined) => number | undefined;
  /** Something beside finalizers still holds the object. */
  isHeld?: (object: KubeObject) => boolean;
  /** Changes that mark the object as being deleted, beside the timestamp. */
  markDeleted?: (draft: KubeObject) => void;
  /** After a write that stored, removed, or failed to store an object. */
  settle?: (uid: string, stored: KubeObject | undefined, server: ServerContext) => void;
}

const NO_STRATEGY: Strategy = {};

export function strategyOf(row: ResourceRow): Strategy {
  return STRATEGIES[qualifiedResource(row.group, row.resource)] ?? NO_STRATEGY;
}
