import type { KubeObject } from '../../object.ts';
import type { StatusCause } from '../../status.ts';
import { planFor } from '../plan.ts';
import type { Plan } from '../plan.ts';
import type { ResourceRow, SchemaTable } from '../schema.ts';
import { builtinTable } from '../table.ts';
import { checkResources } from './containers.ts';
import {
  checkBinding,
  checkClaimSpec,
  checkConfigMap,
  checkEvent,
  checkPriorityClass,
  checkQuota,
  checkRole,
  checkSecret,
  checkStorageClass,
  checkVolumeSpec,
} from './kinds.ts';
import { checkAnnotations, checkLabels, checkMetaUpdate, checkObjectMeta } from './metadata.ts';
import { checkPodSpec } from './pod.ts';
import { fields, Report, text } from './report.ts';
import type { Fields } from './report.ts';
import { checkLabelSelector } from './selectors.ts';
import { checkIngressSpec, checkServiceSpec } from './service.ts';
import { checkTenant } from './tenant.ts';
import { checkUpdate } from './update.ts';
import { rangeProblem, VALUE_RULES } from './values.ts';
import type { ValueRule } from './values.ts';
import {
  checkAutoscaler,
  checkClaimTemplates,
  checkCronJobName,
  checkCronJobSpec,
  checkDaemonSet,
  checkDeployment,
  checkDisruptionBudget,
  checkJobSpec,
  checkReplicaSet,
  checkReplicationController,
  checkStatefulSet,
} from './workloads.ts';

type TypeCheck = (value: Fields, report: Report) => void;

/** Checks that hold wherever a type occurs. */
const TYPE_CHECKS: Record<string, TypeCheck> = {
  'meta.v1.LabelSelector': checkLabelSelector,
  'core.v1.PersistentVolumeClaimSpec': checkClaimSpec,
  'core.v1.PersistentVolumeSpec': checkVolumeSpec,
  'core.v1.PodSpec': checkPodSpec,
  'core.v1.PodTemplateSpec': (template, report) => {
    const metadata = fields(template['metadata']);
    checkLabels(metadata['labels'], report.at('metadata', 'labels'));
    checkAnnotations(metadata['annotations'], report.at('metadata', 'annotations'));
  },
  'core.v1.ReplicationControllerSpec': checkReplicationController,
  'core.v1.ServiceSpec': checkServiceSpec,
  'core.v1.VolumeResourceRequirements': checkResources,
  'apps.v1.DaemonSetSpec': checkDaemonSet,
  'apps.v1.DeploymentSpec': checkDeployment,
  'apps.v1.ReplicaSetSpec': checkReplicaSet,
  'apps.v1.StatefulSetSpec': (spec, report) => {
    checkStatefulSet(spec, report);
    checkClaimTemplates(spec, report);
  },
  'autoscaling.v1.HorizontalPodAutoscalerSpec': checkAutoscaler,
  'autoscaling.v2.HorizontalPodAutoscalerSpec': checkAutoscaler,
  'batch.v1.CronJobSpec': checkCronJobSpec,
  'batch.v1.JobSpec': checkJobSpec,
  'networking.v1.IngressSpec': checkIngressSpec,
  'core.v1.ResourceQuotaSpec': checkQuota,
  'policy.v1.PodDisruptionBudgetSpec': checkDisruptionBudget,
};

/** Checks of whole objects, by resource. */
const KIND_CHECKS: Record<string, TypeCheck> = {
  configmaps: checkConfigMap,
  events: checkEvent,
  'events.events.k8s.io': checkEvent,
  secrets: checkSecret,
  'cronjobs.batch': (job, report) =>
    checkCronJobName(text(fields(job['metadata'])['name']), report),
  'clusterrolebindings.rbac.authorization.k8s.io': (binding, report) => {
    checkBinding(binding, report, ['ClusterRole']);
  },
  'clusterroles.rbac.authorization.k8s.io': (role, report) => checkRole(role, report, false),
  'rolebindings.rbac.authorization.k8s.io': (binding, report) => {
    checkBinding(binding, report, ['Role', 'ClusterRole']);
  },
  'roles.rbac.authorization.k8s.io': (role, report) => checkRole(role, report, true),
  'priorityclasses.scheduling.k8s.io': checkPriorityClass,
  'storageclasses.storage.k8s.io': checkStorageClass,
  'tenants.hypernetes.io': checkTenant,
};

/** Kinds whose lists of containers may only be changed later. */
const CREATE_CHECKS: Record<string, TypeCheck> = {
  pods: (pod, report) => {
    if (fields(pod['spec'])['ephemeralContainers'] === undefined) return;
    report.at('spec', 'ephemeralContainers').forbidden('cannot be set on create');
  },
};

/**
 * What is wrong with an object that is to be created, one cause per field, in Kubernetes' words;
 * an empty list if nothing is. The object has the structure of its type, its defaults, its name
 * (or generateName) and its namespace.
 */
export function validateCreate(
  row: ResourceRow,
  object: KubeObject,
  table: SchemaTable = builtinTable(),
): StatusCause[] {
  const report = new Report();
  checkObject(row, object, table, report);
  CREATE_CHECKS[keyOf(row)]?.(object, report);
  return report.causes;
}

/** The same for a change of `old` into `object`; also tells what may not change. */
export function validateUpdate(
  row: ResourceRow,
  object: KubeObject,
  old: KubeObject,
  table: SchemaTable = builtinTable(),
): StatusCause[] {
  const report = new Report();
  checkObject(row, object, table, report);
  checkMetaUpdate(object, old, report);
  checkUpdate(row, object, old, report);
  return report.causes;
}

function checkObject(
  row: ResourceRow,
  object: KubeObject,
  table: SchemaTable,
  report: Report,
): void {
  checkObjectMeta(row, object, report);
  KIND_CHECKS[keyOf(row)]?.(object, report);
  const plan = planOf(table, row.type);
  if (plan) walk(plan, object, report);
}

function keyOf(row: ResourceRow): string {
  return row.group ? `${row.resource}.${row.group}` : row.resource;
}

interface Rules {
  values: [string, ValueRule][];
  check: TypeCheck | undefined;
}

const plans = new WeakMap<SchemaTable, Map<string, Plan<Rules> | undefined>>();

function planOf(table: SchemaTable, typeName: string): Plan<Rules> | undefined {
  let known = plans.get(table);
  if (!known) {
    known = new Map();
    plans.set(table, known);
  }
  return planFor(table, typeName, rulesOf, known);
}

function rulesOf(shortName: string): Rules | undefined {
  const values = Object.entries(VALUE_RULES[shortName] ?? {});
  const check = TYPE_CHECKS[shortName];
  return values.length > 0 || check ? { values, check } : undefined;
}

function walk(plan: Plan<Rules>, value: unknown, report: Report): void {
  const object = fields(value);
  for (const [field, rule] of plan.rule?.values ?? [])
    checkValue(object[field], rule, report, field);
  plan.rule?.check?.(object, report);
  for (const [field, { plan: inner, shape }] of plan.inner) {
    const part = object[field];
    if (part === undefined) continue;
    if (shape === 'object') walk(inner, part, report.at(field));
    else if (shape === 'list') {
      (part as unknown[]).forEach((item, index) => walk(inner, item, report.at(field, index)));
    } else {
      const at = report.at(field);
      for (const [key, item] of Object.entries(fields(part))) walk(inner, item, at.key(key));
    }
  }
}

function checkValue(value: unknown, rule: ValueRule, report: Report, field: string): void {
  if (value === undefined) return;
  if (rule.oneOf) {
    const known = value === '' || rule.oneOf.includes(String(value));
    if (!known) report.at(field).notSupported(value, rule.oneOf);
  } else if (typeof value === 'number') {
    const problem = rangeProblem(value, rule);
    if (problem) report.at(field).invalid(value, problem);
  }
}
