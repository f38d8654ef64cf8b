import { parseSchedule } from '../../cron.ts';
import { fields, items, text } from './report.ts';
import type { Fields, Report } from './report.ts';
import { checkOwnSelector } from './selectors.ts';

const CRON_NAME_MAX = 52;
const PERCENT = /^\d+%$/;

export function checkDeployment(spec: Fields, report: Report): void {
  checkOwnSelector(spec, 'deployment', report);
  checkRestartAlways(spec, report);
  const strategy = fields(spec['strategy']);
  const at = report.at('strategy', 'rollingUpdate');
  if (strategy['type'] === 'Recreate' && strategy['rollingUpdate'] !== undefined) {
    at.forbidden("may not be specified when strategy `type` is 'Recreate'");
  } else if (strategy['type'] === 'RollingUpdate') {
    const { maxUnavailable, maxSurge } = fields(strategy['rollingUpdate']);
    checkAmount(maxUnavailable, at.at('maxUnavailable'), 100);
    checkAmount(maxSurge, at.at('maxSurge'));
    if (isNone(maxUnavailable) && isNone(maxSurge)) {
      at.at('maxUnavailable').invalid(maxUnavailable, 'may not be 0 when `maxSurge` is 0');
    }
  }
  const deadline = spec['progressDeadlineSeconds'];
  if (typeof deadline === 'number' && deadline <= Number(spec['minReadySeconds'] ?? 0)) {
    report.at('progressDeadlineSeconds').invalid(deadline, 'must be greater than minReadySeconds');
  }
}

export function checkReplicaSet(spec: Fields, report: Report): void {
  checkOwnSelector(spec, 'deployment', report);
  checkRestartAlways(spec, report);
}

export function checkDaemonSet(spec: Fields, report: Report): void {
  checkOwnSelector(spec, 'daemonset', report);
  checkRestartAlways(spec, report);
  const strategy = fields(spec['updateStrategy']);
  if (strategy['type'] !== 'RollingUpdate') return;
  const { maxUnavailable, maxSurge } = fields(strategy['rollingUpdate']);
  const at = report.at('updateStrategy', 'rollingUpdate');
  checkAmount(maxUnavailable, at.at('maxUnavailable'), 100);
  checkAmount(maxSurge, at.at('maxSurge'), 100);
  if (isNone(maxUnavailable) && isNone(maxSurge)) {
    at.at('maxUnavailable').invalid(maxUnavailable, 'cannot be 0 when maxSurge is 0');
  }
}

export function checkStatefulSet(spec: Fields, report: Report): void {
  checkOwnSelector(spec, 'statefulset', report);
  checkRestartAlways(spec, report);
}

export function checkReplicationController(spec: Fields, report: Report): void {
  const selector = fields(spec['selector']);
  if (Object.keys(selector).length === 0) report.at('selector').required();
  if (spec['template'] === undefined) {
    report.at('template').required();
    return;
  }
  const labels = fields(fields(fields(spec['template'])['metadata'])['labels']);
  if (Object.entries(selector).some(([key, value]) => labels[key] !== value)) {
    const at = report.at('template', 'metadata', 'labels');
    at.invalid(labels, '`selector` does not match template `labels`');
  }
  checkRestartAlways(spec, report);
}

/** A workload that keeps pods running cannot let them end. */
function checkRestartAlways(spec: Fields, report: Report): void {
  const podSpec = fields(fields(spec['template'])['spec']);
  const policy = text(podSpec['restartPolicy']);
  if (policy !== '' && policy !== 'Always') {
    report.at('template', 'spec', 'restartPolicy').notSupported(policy, ['Always']);
  }
  if (podSpec['activeDeadlineSeconds'] !== undefined) {
    report
      .at('template', 'spec', 'activeDeadlineSeconds')
      .forbidden('activeDeadlineSeconds in ReplicaSet is not Supported');
  }
}

export function checkJobSpec(spec: Fields, report: Report): void {
  const policy = text(fields(fields(spec['template'])['spec'])['restartPolicy']);
  if (policy === 'Always') {
    report.at('template', 'spec', 'restartPolicy').required('valid values: "OnFailure", "Never"');
  }
  if (spec['completionMode'] === 'Indexed' && spec['completions'] === undefined) {
    report.at('completions').required('when completion mode is Indexed');
  }
  if (spec['podFailurePolicy'] !== undefined && policy !== 'Never') {
    report
      .at('template', 'spec', 'restartPolicy')
      .invalid(policy, 'only "Never" is supported when podFailurePolicy is specified');
  }
}

export function checkCronJobSpec(spec: Fields, report: Report): void {
  const schedule = text(spec['schedule']);
  const at = report.at('schedule');
  if (schedule === '') at.required();
  else if (/^(?:CRON_)?TZ=/.test(schedule)) {
    at.invalid(schedule, 'cannot use TZ or CRON_TZ in schedule, use timeZone field instead');
  } else {
    const problem = scheduleProblem(schedule);
    if (problem) at.invalid(schedule, problem);
  }
  const zone = spec['timeZone'];
  if (zone !== undefined && !isTimeZone(text(zone))) {
    report.at('timeZone').invalid(zone, `unknown time zone ${text(zone)}`);
  }
}

export function checkCronJobName(name: string, report: Report): void {
  if (name.length <= CRON_NAME_MAX) return;
  report.at('metadata', 'name').invalid(name, `must be no more than ${CRON_NAME_MAX} characters`);
}

function scheduleProblem(schedule: string): string | undefined {
  try {
    parseSchedule(schedule);
    return undefined;
  } catch (error) {
    return (error as SyntaxError).message;
  }
}

function isTimeZone(zone: string): boolean {
  if (zone === '' || zone === 'Local') return false;
  try {
    new Intl.DateTimeFormat('en', { timeZone: zone });
    return true;
  } catch {
    return false;
  }
}

/** A number of pods or a percentage of them. */
function checkAmount(value: unknown, report: Report, percentMax = Infinity): void {
  if (typeof value === 'number' && value < 0) {
    report.invalid(value, 'must be greater than or equal to 0');
  }
  if (typeof value !== 'string') return;
  if (!PERCENT.test(value)) {
    report.invalid(
      value,
      "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')",
    );
  } else if (Number.parseInt(value, 10) > percentMax) {
    report.invalid(value, 'must not be greater than 100%');
  }
}

function isNone(value: unknown): boolean {
  return value === 0 || value === '0%';
}

export function checkAutoscaler(spec: Fields, report: Report): void {
  const { minReplicas, maxReplicas } = spec;
  if (typeof minReplicas === 'number' && Number(maxReplicas) < minReplicas) {
    report.at('maxReplicas').invalid(maxReplicas, 'must be greater than or equal to `minReplicas`');
  }
  const target = fields(spec['scaleTargetRef']);
  for (const field of ['kind', 'name']) {
    if (text(target[field]) === '') report.at('scaleTargetRef', field).required();
  }
}

export function checkDisruptionBudget(spec: Fields, report: Report): void {
  if (spec['minAvailable'] !== undefined && spec['maxUnavailable'] !== undefined) {
    report.invalid(spec, 'minAvailable and maxUnavailable cannot be both set');
  }
  checkAmount(spec['minAvailable'], report.at('minAvailable'), 100);
  checkAmount(spec['maxUnavailable'], report.at('maxUnavailable'), 100);
}

/** Claims of a StatefulSet carry names that become part of others. */
export function checkClaimTemplates(spec: Fields, report: Report): void {
  const names = new Set<string>();
  items(spec['volumeClaimTemplates']).forEach((claim, index) => {
    const name = text(fields(claim['metadata'])['name']);
    const at = report.at('volumeClaimTemplates', index, 'metadata', 'name');
    if (name === '') at.required();
    else if (names.has(name)) at.duplicate(name);
    names.add(name);
  });
}
