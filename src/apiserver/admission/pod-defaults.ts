import type { AdmissionPlugin } from './chain.ts';
import { forbidden } from './chain.ts';

interface Toleration {
  key?: string;
  operator?: string;
  value?: string;
  effect?: string;
  tolerationSeconds?: number;
}

interface PodSpec {
  tolerations?: Toleration[];
  nodeSelector?: Record<string, string>;
  priorityClassName?: string;
  priority?: number;
  preemptionPolicy?: string;
  runtimeClassName?: string;
  overhead?: Record<string, string>;
}

const EVICTION_SECONDS = 300;
const NODE_TROUBLES = ['node.kubernetes.io/not-ready', 'node.kubernetes.io/unreachable'];

/** Pods stay on a node in trouble for five minutes, unless they say otherwise. */
export const defaultTolerationSeconds: AdmissionPlugin = {
  name: 'DefaultTolerationSeconds',
  resources: ['pods'],
  operations: ['CREATE', 'UPDATE'],
  mutate({ object }) {
    const spec = (object.spec ??= {}) as PodSpec;
    const tolerations = spec.tolerations ?? [];
    const missing = NODE_TROUBLES.filter(
      (key) =>
        !tolerations.some(
          (one) => (one.key === key || !one.key) && (one.effect === 'NoExecute' || !one.effect),
        ),
    );
    if (missing.length === 0) return;
    const added = missing.map((key) => ({
      key,
      operator: 'Exists',
      effect: 'NoExecute',
      tolerationSeconds: EVICTION_SECONDS,
    }));
    spec.tolerations = [...tolerations, ...added];
  },
};

interface PriorityClass {
  value?: number;
  globalDefault?: boolean;
  preemptionPolicy?: string;
  metadata: { name?: string };
}

/** The number behind a pod's priority class. */
export const priority: AdmissionPlugin = {
  name: 'Priority',
  resources: ['pods'],
  operations: ['CREATE'],
  mutate(request) {
    const { object, server } = request;
    const spec = (object.spec ??= {}) as PodSpec;
    const resource = 'scheduling.k8s.io/priorityclasses';
    const named = spec.priorityClassName;
    const found = named
      ? server.store.get({ resource, namespace: '', name: named })?.object
      : lowestDefault(server.store.list(resource).entries.map((entry) => entry.object));
    if (named && !found) {
      throw forbidden(request, `no PriorityClass with name ${named} was found`);
    }
    const chosen = found as unknown as PriorityClass | undefined;
    const value = chosen?.value ?? 0;
    if (spec.priority !== undefined && spec.priority !== value) {
      const why =
        `the integer value of priority (${spec.priority}) must not be provided in pod spec; ` +
        `priority admission controller computed ${value} from the given PriorityClass name`;
      throw forbidden(request, why);
    }
    if (chosen?.metadata.name) spec.priorityClassName = chosen.metadata.name;
    spec.priority = value;
    spec.preemptionPolicy ??= chosen?.preemptionPolicy ?? 'PreemptLowerPriority';
  },
};

/** There should be one default; of several the one that promises least counts. */
function lowestDefault(classes: unknown[]): object | undefined {
  const defaults = (classes as PriorityClass[]).filter(({ globalDefault }) => globalDefault);
  return defaults.sort((a, b) => (a.value ?? 0) - (b.value ?? 0))[0];
}

interface RuntimeClass {
  overhead?: { podFixed?: Record<string, string> };
  scheduling?: { nodeSelector?: Record<string, string>; tolerations?: Toleration[] };
}

/** What a runtime class costs and where it runs is written into the pod. */
export const runtimeClass: AdmissionPlugin = {
  name: 'RuntimeClass',
  resources: ['pods'],
  operations: ['CREATE'],
  mutate(request) {
    const spec = (request.object.spec ??= {}) as PodSpec;
    const name = spec.runtimeClassName;
    if (!name) return;
    const key = { resource: 'node.k8s.io/runtimeclasses', namespace: '', name };
    const found = request.server.store.get(key)?.object as unknown as RuntimeClass | undefined;
    if (!found) throw forbidden(request, `pod rejected: RuntimeClass "${name}" not found`);
    if (found.overhead?.podFixed) spec.overhead = { ...found.overhead.podFixed };
    const { nodeSelector = {}, tolerations = [] } = found.scheduling ?? {};
    for (const [label, value] of Object.entries(nodeSelector)) {
      const own = spec.nodeSelector?.[label];
      if (own === undefined || own === value) continue;
      const why =
        `conflict: runtimeClass.scheduling.nodeSelector[${label}] = ${value}; ` +
        `pod.spec.nodeSelector[${label}] = ${own}`;
      throw forbidden(request, why);
    }
    if (Object.keys(nodeSelector).length > 0) {
      spec.nodeSelector = { ...nodeSelector, ...spec.nodeSelector };
    }
    if (tolerations.length > 0) spec.tolerations = [...(spec.tolerations ?? []), ...tolerations];
  },
};

const TIMELINE_PREFIX = 'timeline.hypernetes.io/';

/** The first stamp of a pod's boot timeline. Later ones are its nodes' and the scheduler's. */
export const timeline: AdmissionPlugin = {
  name: 'Timeline',
  resources: ['pods'],
  operations: ['CREATE'],
  mutate({ object, server }) {
    const annotations: Record<string, string> = {};
    for (const [key, value] of Object.entries(object.metadata.annotations ?? {})) {
      if (!key.startsWith(TIMELINE_PREFIX)) annotations[key] = value;
    }
    annotations[`${TIMELINE_PREFIX}admitted`] = new Date(server.clock.nowMs()).toISOString();
    object.metadata.annotations = annotations;
  },
};

const NOT_READY = { key: 'node.kubernetes.io/not-ready', effect: 'NoSchedule' };

/** A new node takes no pods until the node controller has seen that it is ready. */
export const taintNodesByCondition: AdmissionPlugin = {
  name: 'TaintNodesByCondition',
  resources: ['nodes'],
  operations: ['CREATE'],
  mutate({ object }) {
    const spec = (object.spec ??= {}) as { taints?: { key: string; effect: string }[] };
    const taints = spec.taints ?? [];
    const isTainted = taints.some(
      ({ key, effect }) => key === NOT_READY.key && effect === NOT_READY.effect,
    );
    if (!isTainted) spec.taints = [...taints, { ...NOT_READY }];
  },
};

const DEFAULT_CLASS = 'storageclass.kubernetes.io/is-default-class';

/** A claim that names no class gets the newest default one. */
export const defaultStorageClass: AdmissionPlugin = {
  name: 'DefaultStorageClass',
  resources: ['persistentvolumeclaims'],
  operations: ['CREATE'],
  mutate({ object, server }) {
    const spec = (object.spec ??= {}) as { storageClassName?: string };
    if (spec.storageClassName !== undefined) return;
    const classes = server.store.list('storage.k8s.io/storageclasses').entries;
    const defaults = classes.filter(
      (entry) => entry.object.metadata.annotations?.[DEFAULT_CLASS] === 'true',
    );
    const newest = defaults.sort((a, b) => b.createRevision - a.createRevision)[0];
    if (newest) spec.storageClassName = newest.key.name;
  },
};
