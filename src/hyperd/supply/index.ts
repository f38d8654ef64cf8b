import { mkdir, readFile } from 'node:fs/promises';
import { availableParallelism, freemem, totalmem } from 'node:os';
import { join } from 'node:path';
import type { VmStatus } from '../../api/hyperd.ts';
import { abortable } from '../../base/abort.ts';
import { allOf } from '../../base/all-of.ts';
import { describeError } from '../../base/log.ts';
import { HypervisorError } from '../vmm/hypervisor.ts';
import type { Hypervisor, Vm, VmSpec } from '../vmm/hypervisor.ts';
import { createPool, defaultPolicy } from './pool.ts';
import type { PoolPolicy } from './pool.ts';
import { createRehearsalDisk } from './rehearsal-disk.ts';
import type { VmShape } from './shape.ts';
import type { StartedVm, SupplyCounts, VmRequest, VmSupply, WarmVm } from './supply.ts';
import { openTemplates } from './templates.ts';
import type { Template, TemplateLimits } from './templates.ts';
import { createTurns } from './turns.ts';
import { createWorkshop } from './workshop.ts';
import type { WorkshopOptions } from './workshop.ts';

export interface SupplyOptions extends WorkshopOptions {
  /** Templates and the rehearsal's disk lie in it. */
  directory: string;
  /**
   * The program of the rehearsal: hyperstart, as it was compiled for the guest. Without it there
   * are neither templates nor a pool: every VM boots.
   */
  rehearsalProgramPath?: string;
  policy?: PoolPolicy;
  templateLimits?: Partial<TemplateLimits>;
}

/**
 * Pods of a shape that boot while there is no template for them. More at once, and making the
 * template first is faster for all that follow.
 */
const BOOTS_MAX = availableParallelism();
/**
 * VMs of pods that start at the same time. Half of what a start takes is its processor's; the rest
 * is waiting, in which another gets on.
 */
const STARTS_MAX = 2 * availableParallelism();
/** Of the host's memory: when less is free, nothing waits for pods. */
const FREE_SHARE_MIN = 0.05;

export async function openSupply(options: SupplyOptions): Promise<VmSupply> {
  await mkdir(options.vmsDirectory, { recursive: true, mode: 0o711 });
  const canClone =
    options.rehearsalProgramPath !== undefined && options.hypervisor.capabilities.has('template');
  return canClone ? openFullSupply(options) : coldSupply(options);
}

/** For a hypervisor without templates. */
function coldSupply({ hypervisor }: SupplyOptions): VmSupply {
  const inTurn = createStarts();
  const counts = noCounts();
  return {
    takeWarm: async () => undefined,
    noteStart: () => {},
    start: async (spec, shape, booted, signal) => ({
      vm: await inTurn(shape, booted, signal, () => hypervisor.create(spec, signal)).then((vm) => {
        counts.starts.cold += 1;
        return vm;
      }),
      origin: 'cold',
    }),
    templates: () => [],
    removeTemplate: async () => {},
    pools: () => [],
    limitPool: () => {},
    forget: async () => {},
    counts: () => counts,
    idleVms: async () => [],
    close: async () => {},
  };
}

async function openFullSupply(options: SupplyOptions): Promise<VmSupply> {
  const { hypervisor, clock, log } = options;
  await mkdir(options.directory, { recursive: true, mode: 0o700 });
  const imagePath = join(options.directory, 'rehearsal.erofs');
  await createRehearsalDisk(imagePath, options.rehearsalProgramPath ?? '');
  const workshop = createWorkshop(options, imagePath);
  const boots = createBoots();
  const inTurn = createStarts();
  const counts = noCounts();
  const templates = await openTemplates({
    directory: join(options.directory, 'templates'),
    host: () => hostIdentity(hypervisor),
    async build(template, signal) {
      await boots.over(template.shape, signal);
      await workshop.build(template, signal);
    },
    clock,
    log,
    limits: options.templateLimits,
  });
  const startClone = async (spec: VmSpec, template: Template, signal: AbortSignal) => {
    try {
      return await workshop.startClone(spec, template, signal);
    } catch (error) {
      signal.throwIfAborted();
      // What the request is to blame for is not the template's fault.
      if (!(error instanceof HypervisorError && error.reason === 'Invalid')) {
        await templates.condemn(template, describeError(error));
      }
      throw error;
    }
  };
  let overhead = 0;
  void hypervisor.probe().then(
    ({ overheadMemoryMib }) => (overhead = overheadMemoryMib),
    () => {},
  );
  const policy = options.policy ?? defaultPolicy();
  const pool = createPool({
    // A guest that waits and cannot be stopped would cost what a pod costs.
    policy: hypervisor.capabilities.has('pause') ? policy : { ...policy, kind: 'off' },
    clock,
    log,
    isShortOfMemory: () => freemem() < totalmem() * FREE_SHARE_MIN,
    memoryMibOf: ({ shape }) => shape.memoryMib + overhead,
    async make(request, image, signal) {
      const template = await templates.find(request.shape, signal);
      if (template === undefined) throw new Error('There is no template to start it from');
      return workshop.makeWarm(
        request,
        image,
        (spec) => startClone(spec, template, signal),
        signal,
      );
    },
    end: (warm) => workshop.end(warm),
  });
  return {
    async takeWarm(request, limits) {
      const warm = pool.take(request);
      if (warm === undefined) return undefined;
      try {
        await allOf(warm.vm.setLimits(limits), warm.vm.resume());
        counts.starts.warm += 1;
        return warm;
      } catch (error) {
        log.warn('VM of the pool does not go on', { vm: warm.id, error: describeError(error) });
        await workshop.end(warm);
        return undefined;
      }
    },
    noteStart: (request, image) => pool.noteStart(request, image),
    async start(spec, shape, booted, signal): Promise<StartedVm> {
      const isFirst = boots.count(shape) < BOOTS_MAX;
      const template = isFirst ? await templates.ready(shape) : await templates.find(shape, signal);
      if (template !== undefined) {
        try {
          const clone = () => startClone(spec, template, signal);
          const vm = await inTurn(shape, booted, signal, clone);
          counts.starts.template += 1;
          return { vm, origin: 'template' };
        } catch (error) {
          signal.throwIfAborted();
          counts.fallbacks += 1;
          log.warn('VM does not start from its template, it boots', {
            ...{ vm: spec.id, error: describeError(error) },
          });
        }
      }
      boots.add(shape, booted);
      if (isFirst) void templates.find(shape).catch(() => {});
      const boot = () => hypervisor.create(spec, signal);
      const vm = await inTurn(shape, booted, signal, boot);
      counts.starts.cold += 1;
      return { vm, origin: 'cold' };
    },
    templates: () => templates.list(),
    removeTemplate: (id) => templates.remove(id),
    pools: () => pool.status(),
    limitPool: (owner, memoryMib) => pool.limit(owner, memoryMib),
    async forget(owner) {
      // A VM that is being made may be waiting for its template.
      await pool.forget(owner);
      await templates.forget(owner);
    },
    counts: () => ({ ...counts, ...templates.counts() }),
    async idleVms() {
      const all = await Promise.all(pool.waiting().map(idleVmStatus));
      return all.filter((vm) => vm !== undefined);
    },
    async close() {
      await Promise.all([pool.close(), templates.close()]);
    },
  };
}

/** Undefined for one that ends meanwhile. */
async function idleVmStatus({
  request,
  warm,
}: {
  request: VmRequest;
  warm: WarmVm;
}): Promise<VmStatus | undefined> {
  const used = await warm.vm.stats().catch(() => undefined);
  if (!used) return undefined;
  const { cpuCount, memoryMib } = request.shape;
  const size = { pid: warm.vm.pid, cpuCount, memoryMib };
  const use = { cpuNanos: used.cpuNanos, hostMemoryBytes: used.rssBytes };
  return { id: warm.id, pod: '', state: 'paused', ...size, ...use };
}

function noCounts(): SupplyCounts {
  const starts = { warm: 0, template: 0, cold: 0 };
  return { starts, fallbacks: 0, templateBuilds: 0, templateFailures: 0 };
}

/** Starts a VM when it is its owner's turn, which it has until its guest has answered. */
function createStarts() {
  const turns = createTurns(STARTS_MAX);
  return async (
    { owner }: VmShape,
    booted: Promise<unknown>,
    signal: AbortSignal,
    start: () => Promise<Vm>,
  ): Promise<Vm> => {
    const leave = await turns.take(owner, signal);
    try {
      const vm = await start();
      void booted.then(leave, leave);
      return vm;
    } catch (error) {
      leave();
      throw error;
    }
  };
}

/** Cold starts of each shape that are under way. */
function createBoots() {
  const byShape = new Map<string, Set<Promise<unknown>>>();
  const of = (shape: VmShape) => byShape.get(JSON.stringify(shape));
  return {
    count: (shape: VmShape) => of(shape)?.size ?? 0,
    add(shape: VmShape, booted: Promise<unknown>) {
      const key = JSON.stringify(shape);
      const all = byShape.get(key) ?? new Set();
      byShape.set(key, all.add(booted));
      const done = () => {
        all.delete(booted);
        if (all.size === 0) byShape.delete(key);
      };
      booted.then(done, done);
    },
    /** Resolves when those that are under way now have ended. */
    async over(shape: VmShape, signal: AbortSignal): Promise<void> {
      await abortable(Promise.allSettled(of(shape) ?? []), signal);
    },
  };
}

/** Templates do not outlive a boot of the host, nor another emulator. */
async function hostIdentity(hypervisor: Hypervisor): Promise<string> {
  const { accelerator, version, templateFormat } = await hypervisor.probe();
  const bootId = (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim();
  return [hypervisor.name, accelerator, version, templateFormat, bootId].join(' ');
}
