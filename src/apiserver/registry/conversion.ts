import type { KubeObject } from '../../api/object.ts';

/**
 * Conversions between versions of one kind, by `from>to` of `apiVersion/Kind`. Almost every kind
 * has a single version; these are the exceptions of Kubernetes' generally available groups.
 */
type Conversion = (object: KubeObject) => KubeObject;
type Fields = Record<string, unknown>;

const CONVERSIONS: Record<string, Conversion> = {
  'v1>events.k8s.io/v1/Event': (event) => {
    const { involvedObject, message, source, ...rest } = event;
    const { firstTimestamp, lastTimestamp, count, reportingComponent, reportingInstance, ...same } =
      rest;
    return compact({
      ...same,
      regarding: involvedObject,
      note: message,
      deprecatedSource: source,
      deprecatedFirstTimestamp: firstTimestamp,
      deprecatedLastTimestamp: lastTimestamp,
      deprecatedCount: count,
      reportingController: reportingComponent,
      reportingInstance,
    });
  },
  'events.k8s.io/v1>v1/Event': (event) => {
    const { regarding, note, deprecatedSource, deprecatedFirstTimestamp, ...rest } = event;
    const { deprecatedLastTimestamp, deprecatedCount, reportingController, ...same } = rest;
    return compact({
      ...same,
      involvedObject: regarding,
      message: note,
      source: deprecatedSource,
      firstTimestamp: deprecatedFirstTimestamp,
      lastTimestamp: deprecatedLastTimestamp,
      count: deprecatedCount,
      reportingComponent: reportingController,
    });
  },
  'autoscaling/v1>autoscaling/v2/HorizontalPodAutoscaler': autoscalerToV2,
  'autoscaling/v2>autoscaling/v1/HorizontalPodAutoscaler': autoscalerToV1,
};

/** The object in another version of its kind. An unchanged one is returned as it is. */
export function convert(object: KubeObject, apiVersion: string): KubeObject {
  if (object.apiVersion === apiVersion) return object;
  const conversion = CONVERSIONS[`${object.apiVersion}>${apiVersion}/${object.kind}`];
  return { ...(conversion ? conversion(object) : object), apiVersion };
}

/** Where autoscaling/v1 keeps what its fields cannot say. */
const METRICS_ANNOTATION = 'autoscaling.alpha.kubernetes.io/metrics';

function autoscalerToV2(object: KubeObject): KubeObject {
  const { targetCPUUtilizationPercentage: target, ...spec } = fields(object.spec);
  const { currentCPUUtilizationPercentage: current, ...status } = fields(object.status);
  const annotations = { ...object.metadata.annotations };
  const others = parseMetrics(annotations[METRICS_ANNOTATION]);
  delete annotations[METRICS_ANNOTATION];
  const cpu = target === undefined ? [] : [cpuMetric('target', 'Utilization', target)];
  const metrics = [...cpu, ...others];
  const now = current === undefined ? [] : [cpuMetric('current', undefined, current)];
  return compact({
    ...object,
    metadata: compact({ ...object.metadata, annotations: emptyToUndefined(annotations) }),
    spec: compact({ ...spec, metrics: metrics.length > 0 ? metrics : undefined }),
    status:
      object.status && compact({ ...status, currentMetrics: now.length > 0 ? now : undefined }),
  });
}

function autoscalerToV1(object: KubeObject): KubeObject {
  const { metrics, behavior: _, ...spec } = fields(object.spec);
  const { currentMetrics, conditions: __, ...status } = fields(object.status);
  const list = (metrics ?? []) as Fields[];
  const cpu = list.find(isCpuUtilization);
  const others = list.filter((metric) => metric !== cpu);
  const annotations = { ...object.metadata.annotations };
  if (others.length > 0) annotations[METRICS_ANNOTATION] = JSON.stringify(others);
  const current = ((currentMetrics ?? []) as Fields[]).find(isCpuUtilization);
  return compact({
    ...object,
    metadata: compact({ ...object.metadata, annotations: emptyToUndefined(annotations) }),
    spec: compact({ ...spec, targetCPUUtilizationPercentage: utilization(cpu, 'target') }),
    status:
      object.status &&
      compact({
        ...status,
        currentCPUUtilizationPercentage: utilization(current, 'current'),
      }),
  });
}

function cpuMetric(side: string, type: string | undefined, averageUtilization: unknown): Fields {
  const value = compact({ type, averageUtilization });
  return { type: 'Resource', resource: { name: 'cpu', [side]: value } };
}

function isCpuUtilization(metric: Fields): boolean {
  return metric.type === 'Resource' && fields(metric.resource).name === 'cpu';
}

function utilization(metric: Fields | undefined, side: string): unknown {
  return metric && fields(fields(metric.resource)[side]).averageUtilization;
}

function parseMetrics(annotation: string | undefined): Fields[] {
  if (!annotation) return [];
  try {
    const parsed: unknown = JSON.parse(annotation);
    return Array.isArray(parsed) ? (parsed as Fields[]) : [];
  } catch {
    // The annotation is the user's: what cannot be read says nothing.
    return [];
  }
}

function fields(value: unknown): Fields {
  return (value ?? {}) as Fields;
}

function emptyToUndefined(record: Record<string, string>): Record<string, string> | undefined {
  return Object.keys(record).length > 0 ? record : undefined;
}

function compact<T extends object>(object: T): T {
  const fields = object as Fields;
  for (const key of Object.keys(fields)) if (fields[key] === undefined) delete fields[key];
  return object;
}
