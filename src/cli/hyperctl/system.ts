import type { HyperdClient } from '../../client/hyperd.ts';
import { systemClock } from '../../base/clock.ts';
import { describe, print } from '../output.ts';
import { versionString } from '../version.ts';
import { bytes, printList } from './format.ts';
import type { ListOptions } from './format.ts';
import { shortId } from './names.ts';

export async function info(client: HyperdClient, { format }: ListOptions): Promise<void> {
  const about = await client.info();
  const { machine, defaults } = about;
  print(format === 'json', about, () =>
    describe({
      HYPERD: about.version,
      HYPERVISOR: `${about.hypervisor}, ${about.accelerator}`,
      'NOT BETTER BECAUSE': about.acceleratorReason || undefined,
      'GUEST KERNEL': about.kernelVersion,
      PODS: String(about.podCount),
      PROCESSORS: String(machine.cpuCount),
      MEMORY: bytes(machine.memoryBytes),
      DISK: bytes(machine.diskBytes),
      NETWORK: defaults.network?.cidr ?? 'none',
      RESOLVERS: defaults.dns.nameservers.join(', ') || 'none',
    }),
  );
}

export async function version(
  client: HyperdClient | undefined,
  { format }: ListOptions,
): Promise<void> {
  const hyperd = client ? (await client.info()).version : undefined;
  print(format === 'json', { hyperctl: versionString(), hyperd: hyperd ?? null }, () =>
    describe({ HYPERCTL: versionString(), HYPERD: hyperd ?? 'does not run here' }),
  );
}

export async function ping(client: HyperdClient): Promise<void> {
  const startMs = systemClock.monotonicMs();
  await client.ping();
  process.stdout.write(
    `hyperd answers after ${(systemClock.monotonicMs() - startMs).toFixed(1)} ms\n`,
  );
}

/** Prints what changes until it is interrupted, or hyperd ends. */
export async function events(client: HyperdClient, { format }: ListOptions): Promise<void> {
  for await (const event of client.events(new AbortController().signal, () => {})) {
    if (format === 'json') {
      process.stdout.write(`${JSON.stringify(event)}\n`);
      continue;
    }
    const time = new Date(systemClock.nowMs()).toISOString();
    const subject = [event.pod, event.container].filter(Boolean).join('/');
    process.stdout.write(`${time} ${event.type} ${subject}`.trimEnd() + '\n');
  }
}

export async function listKernels(client: HyperdClient, options: ListOptions): Promise<void> {
  const header = ['NAME', 'ID', 'RELEASE', 'SIZE', 'DEFAULT', 'FROM'];
  printList(options, await client.kernels(), header, (kernel) => [
    ...[kernel.names.join(',') || '-', shortId(kernel.id) || '-', kernel.release],
    ...[bytes(kernel.bytes), kernel.isDefault ? 'yes' : '', kernel.origin],
  ]);
}

export async function listTemplates(client: HyperdClient, options: ListOptions): Promise<void> {
  const header = ['ID', 'OWNER', 'STATE', 'PROCESSORS', 'MEMORY', 'KERNEL', 'DISK', 'USED'];
  printList(options, await client.templates(), header, (template) => [
    ...[template.id, template.owner, template.phase, String(template.cpuCount)],
    ...[`${template.memoryMib} MiB`, template.kernel || '-', bytes(template.diskBytes)],
    String(template.useCount),
  ]);
}

export async function listPools(client: HyperdClient, options: ListOptions): Promise<void> {
  const header = [
    'OWNER',
    'NETWORK',
    'PROCESSORS',
    'MEMORY',
    'WAITING',
    'WANTED',
    'FOUND',
    'MISSED',
  ];
  printList(options, await client.pools(), header, (pool) => [
    ...[pool.owner, pool.network || '-', String(pool.cpuCount), `${pool.memoryMib} MiB`],
    ...[pool.waiting, pool.wanted, pool.hits, pool.misses].map(String),
  ]);
}

export async function removeTemplates(client: HyperdClient, ids: string[]): Promise<void> {
  for (const id of ids) {
    await client.removeTemplate(id);
    process.stdout.write(`${id}\n`);
  }
}

export async function listVms(client: HyperdClient, options: ListOptions): Promise<void> {
  const header = ['ID', 'POD', 'STATE', 'PID', 'PROCESSORS', 'MEMORY', 'ON THIS MACHINE'];
  printList(options, await client.vms(), header, (vm) => [
    ...[vm.id, vm.pod || '-', vm.state, String(vm.pid), String(vm.cpuCount)],
    ...[`${vm.memoryMib} MiB`, bytes(vm.hostMemoryBytes)],
  ]);
}
