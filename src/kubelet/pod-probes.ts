import { latest } from './decide.ts';
import type { ContainerStarter } from './container-starter.ts';
import { runCommand } from './exec.ts';
import type { PodView } from './history.ts';
import type { PodScope } from './pod-scope.ts';
import { createProbes } from './probes.ts';
import type { ProbeDriver, Probes, ProbeTarget } from './probes.ts';

/** The probes of one pod's containers, by hyperd; failures become the pod's events. */
export function createPodProbes(
  scope: PodScope,
  containers: ContainerStarter,
  owner: Pick<ProbeDriver, 'onUnhealthy' | 'onChange'> & { signal: AbortSignal },
): Probes {
  const { hyperd, clock, events } = scope.context;
  const { signal, onUnhealthy, onChange } = owner;
  const sandboxOf = (target: ProbeTarget) => target.attempt.sandboxId ?? '';
  const driver: ProbeDriver = {
    async exec(target, argv, timeoutMs) {
      const own = await containers.processOf(target.attempt);
      const where = { sandboxId: sandboxOf(target), containerId: target.attempt.containerId };
      return runCommand(hyperd, clock, where, { ...own, argv, tty: false }, timeoutMs, signal);
    },
    request: (target, request) => hyperd.probe(sandboxOf(target), request, signal),
    podIp: () => scope.view().sandbox?.address ?? '',
    onFailure(target, kind, message) {
      const title = `${kind[0]?.toUpperCase()}${kind.slice(1)}`;
      const text = `${title} probe failed: ${message}`;
      events.emit(scope.pod, 'Warning', 'Unhealthy', text, target.container.name);
    },
    onUnhealthy,
    onChange,
  };
  return createProbes(driver, clock);
}

/** The containers that are to be probed: those that run in the newest VM, their hook done. */
export function probeTargets(view: PodView, containers: ContainerStarter): ProbeTarget[] {
  return view.containers.flatMap((each) => {
    const attempt = latest(each);
    const isUp = attempt?.phase === 'running' && attempt.sandboxId === view.sandbox?.id;
    if (!isUp || containers.isHooked(attempt)) return [];
    return [{ attempt, container: each.container }];
  });
}
