import { isDeepStrictEqual } from 'node:util';
import type { KubeObject } from '../../../api/object.ts';
import { Report, fields, items, text } from '../../../api/schema/validation/report.ts';
import type { Fields } from '../../../api/schema/validation/report.ts';
import type { StatusCause } from '../../../api/status.ts';
import { podSpec, qosClass } from './pod.ts';

/** Written by a kubelet on pods that are from a file of its node and not from the API. */
const MIRROR_ANNOTATION = 'kubernetes.io/config.mirror';
const RESIZABLE = ['cpu', 'memory'];
const LISTS = ['containers', 'initContainers'] as const;

/**
 * What may not be done by `pods/resize`: everything but other amounts of CPU and memory, by the rules
 * of Kubernetes 1.35. That amounts are amounts, and requests no more than limits, is checked of every
 * pod.
 */
export function resizeCauses(object: KubeObject, old: KubeObject): StatusCause[] {
  const report = new Report();
  const refusal = unresizable(old);
  if (refusal !== undefined) {
    report.at('spec').forbidden(refusal);
    return report.causes;
  }
  const before = fields(old.spec);
  const after = fields(object.spec);
  for (const list of LISTS) {
    items(after[list]).forEach((container, index) => {
      const was = items(before[list])[index] ?? {};
      const isFixed = list === 'initContainers' && container['restartPolicy'] !== 'Always';
      checkContainer(container, was, isFixed, report.at('spec', list, index));
    });
  }
  if (qosClass(podSpec(object)) !== qosClass(podSpec(old))) {
    const detail = 'Pod QOS Class may not change as a result of resizing';
    report.at('spec').invalid(qosClass(podSpec(object)), detail);
  }
  return report.causes;
}

/** Why no resize of the pod is possible; undefined where it is. */
function unresizable({ metadata, spec, status }: KubeObject): string | undefined {
  const phase = text(fields(status)['phase']);
  if (phase === 'Succeeded' || phase === 'Failed') {
    return `pods that have ended cannot be resized: the phase is ${phase}`;
  }
  if (metadata.annotations?.[MIRROR_ANNOTATION] !== undefined) {
    return 'static pods cannot be resized';
  }
  const { os, resources } = fields(spec);
  if (fields(os)['name'] === 'windows') return 'windows pods cannot be resized';
  if (resources !== undefined) return 'pods with pod-level resources cannot be resized';
  const isUntold = items(fields(status)['containerStatuses']).some(
    (each) => fields(each['state'])['running'] !== undefined && each['resources'] === undefined,
  );
  return isUntold ? 'Pod running on node without support for resize' : undefined;
}

/** @param isFixed an init container that ends: what it gets is counted, not held for long */
function checkContainer(container: Fields, was: Fields, isFixed: boolean, report: Report): void {
  if (!isDeepStrictEqual(container['resizePolicy'], was['resizePolicy'])) {
    report.at('resizePolicy').forbidden('only cpu and memory resources are mutable');
  }
  const after = fields(container['resources']);
  const before = fields(was['resources']);
  if (isDeepStrictEqual(after, before)) return;
  const at = report.at('resources');
  if (isFixed) {
    at.forbidden('resources for non-sidecar init containers are immutable');
    return;
  }
  for (const side of ['requests', 'limits'] as const) {
    const gone = RESIZABLE.filter(
      (name) => fields(before[side])[name] !== undefined && fields(after[side])[name] === undefined,
    );
    if (gone.length > 0) at.at(side).forbidden(`resource ${side} cannot be removed`);
  }
  if (!isDeepStrictEqual(withoutResizable(after), withoutResizable(before))) {
    at.forbidden('only cpu and memory resources are mutable');
  }
}

/** A side that is empty says as much as one that is not there. */
function withoutResizable({ requests, limits, ...rest }: Fields): Fields {
  const others = (side: unknown) =>
    Object.fromEntries(Object.entries(fields(side)).filter(([name]) => !RESIZABLE.includes(name)));
  return { ...rest, requests: others(requests), limits: others(limits) };
}
