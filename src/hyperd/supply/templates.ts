import { createHash } from 'node:crypto';
import { mkdir, readFile, readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { abortable } from '../../base/abort.ts';
import type { Clock } from '../../base/clock.ts';
import { readFileIfExists, writeFileAtomic } from '../../base/files.ts';
import { describeError } from '../../base/log.ts';
import type { Log } from '../../base/log.ts';
import { templateId } from './shape.ts';
import type { VmShape } from './shape.ts';
import type { OwnTemplateStatus, SupplyCounts } from './supply.ts';

/**
 * The templates of this host, one for each shape that pods have had, each of one owner.
 *
 *   (none) ──find()──> building ──built──> ready ──lost or found broken──> (none)
 *                          └──failed──> resting ──a while──> (none)
 *
 * On disk a template is a directory that is whole when `template.json` is in it; anything else was
 * being made when a daemon died, and is removed.
 */
export interface Templates {
  /**
   * The template to start a VM of this shape from; where there is none it is made, and waited for.
   * Undefined for shapes without an owner, and while there is none because it could not be made.
   */
  find(shape: VmShape, signal?: AbortSignal): Promise<Template | undefined>;
  /** The same without waiting and without making one. */
  ready(shape: VmShape): Promise<Template | undefined>;
  /** Its VMs do not start: it is removed, and made again by the next who asks. */
  condemn(template: Template, why: string): Promise<void>;
  list(): OwnTemplateStatus[];
  counts(): Pick<SupplyCounts, 'templateBuilds' | 'templateFailures'>;
  remove(id: string): Promise<void>;
  /** Removes all of an owner's; those that are being made are given up. */
  forget(owner: string): Promise<void>;
  close(): Promise<void>;
}

export interface Template {
  id: string;
  directory: string;
  shape: VmShape;
}

export interface TemplatesOptions {
  directory: string;
  /** What all templates of this host depend on, as in `templateId`. */
  host: () => Promise<string>;
  /** Makes the files of a template in an empty directory. */
  build: (template: Template, signal: AbortSignal) => Promise<void>;
  clock: Clock;
  log: Log;
  limits?: Partial<TemplateLimits>;
}

export interface TemplateLimits {
  count: number;
  diskBytes: number;
  /** How long nobody tries to make one that could not be made. */
  restMs: number;
}

/** Twenty tenants with pods of a few sizes; each takes its memory's size on the disk. */
const TEMPLATE_LIMITS: TemplateLimits = {
  count: 64,
  diskBytes: 16 * 2 ** 30,
  restMs: 60_000,
};

/** What is found beside the driver's own files in the directory of one that is whole. */
interface Manifest {
  id: string;
  shape: VmShape;
  createdAtMs: number;
  /** Sizes and, of what is small, the content's digest: what a broken disk would change. */
  files: { name: string; bytes: number; sha256: string | null }[];
}

interface Entry {
  template: Template;
  status: OwnTemplateStatus;
  files: Manifest['files'];
  usedAtMs: number;
  /** Of one that is being made: settles when that has ended, well or not. */
  making: Promise<void> | undefined;
  /** Ends with it. */
  life: AbortController;
}

const MANIFEST = 'template.json';
/** Memory is not read again at each start: it is as large as the VM. */
const DIGEST_BYTES_MAX = 8 << 20;

export async function openTemplates(options: TemplatesOptions): Promise<Templates> {
  const { directory, clock, log } = options;
  const limits = { ...TEMPLATE_LIMITS, ...options.limits };
  const entries = await loadTemplates(options);
  const life = new AbortController();

  const drop = async (entry: Entry) => {
    if (entries.get(entry.template.id) === entry) entries.delete(entry.template.id);
    await rm(entry.template.directory, { recursive: true, force: true });
  };
  /** For one that is among them already, with the disk that it will take. */
  const makeRoom = async () => {
    for (;;) {
      const all = [...entries.values()];
      const used = all.reduce((sum, { status }) => sum + status.diskBytes, 0);
      if (all.length <= limits.count && used <= limits.diskBytes) return;
      const idle = all.filter(({ making }) => making === undefined);
      const [oldest] = idle.sort((a, b) => a.usedAtMs - b.usedAtMs);
      if (oldest === undefined) throw new Error('there is no room for another template');
      log.info('template removed to make room', { template: oldest.template.id });
      await drop(oldest);
    }
  };
  const counts = { templateBuilds: 0, templateFailures: 0 };
  const make = async (entry: Entry) => {
    const { template, status } = entry;
    const startMs = clock.monotonicMs();
    try {
      await makeRoom();
      await mkdir(template.directory, { mode: 0o700 });
      await options.build(template, AbortSignal.any([life.signal, entry.life.signal]));
      entry.files = await describeFiles(template.directory);
      status.createdAtMs = clock.nowMs();
      const manifest: Manifest = {
        ...{ id: template.id, shape: template.shape },
        ...{ createdAtMs: status.createdAtMs, files: entry.files },
      };
      await writeFileAtomic(join(template.directory, MANIFEST), JSON.stringify(manifest));
      status.phase = 'ready';
      status.diskBytes = entry.files.reduce((sum, { bytes }) => sum + bytes, 0);
      const tookMs = Math.round(clock.monotonicMs() - startMs);
      counts.templateBuilds += 1;
      log.info('template made', { template: template.id, owner: status.owner, tookMs });
    } catch (error) {
      await rm(template.directory, { recursive: true, force: true });
      if (life.signal.aborted || entry.life.signal.aborted) {
        return void entries.delete(template.id);
      }
      counts.templateFailures += 1;
      Object.assign(status, { phase: 'resting', message: describeError(error), diskBytes: 0 });
      log.warn('template cannot be made: VMs boot', { template: template.id, error });
    } finally {
      entry.making = undefined;
      entry.usedAtMs = clock.monotonicMs();
    }
  };
  const begin = (id: string, shape: VmShape) => {
    const entry = newEntry({ id, directory: join(directory, id), shape }, clock.monotonicMs());
    entries.set(id, entry);
    entry.making = make(entry);
    return entry;
  };
  const usable = async (entry: Entry): Promise<Template | undefined> => {
    if (entry.status.phase !== 'ready') return undefined;
    const problem = await findDamage(entry).catch(describeError);
    if (problem === undefined) {
      entry.usedAtMs = clock.monotonicMs();
      entry.status.useCount += 1;
      return entry.template;
    }
    log.error('template is damaged: VMs boot until there is another', {
      ...{ template: entry.template.id, problem },
    });
    await drop(entry);
    return undefined;
  };
  const ready = async (shape: VmShape): Promise<Template | undefined> => {
    const entry = entries.get(await templateId(shape, await options.host()));
    return entry && usable(entry);
  };
  return {
    ready,
    async find(shape, signal) {
      if (shape.owner === '') return undefined;
      const id = await templateId(shape, await options.host());
      if (life.signal.aborted) return undefined;
      const known = entries.get(id);
      const isResting = known?.status.phase === 'resting';
      const isRested = isResting && clock.monotonicMs() - known.usedAtMs > limits.restMs;
      const entry = known === undefined || isRested ? begin(id, shape) : known;
      if (entry.making !== undefined) await abortable(entry.making, signal);
      return usable(entry);
    },
    async condemn({ id }, why) {
      const entry = entries.get(id);
      if (entry === undefined || entry.making !== undefined) return;
      log.error('template does not start VMs: they boot until there is another', {
        ...{ template: id, problem: why },
      });
      await drop(entry);
    },
    counts: () => ({ ...counts }),
    list: () => [...entries.values()].map(({ status }) => ({ ...status })),
    async remove(id) {
      const entry = entries.get(id);
      if (entry === undefined) return;
      await entry.making;
      await drop(entry);
    },
    async forget(owner) {
      const all = [...entries.values()].filter(({ status }) => status.owner === owner);
      for (const { life } of all) life.abort(new Error(`"${owner}" is forgotten`));
      await Promise.all(all.map(({ making }) => making));
      await Promise.all(all.map(drop));
    },
    async close() {
      life.abort(new Error('The daemon is ending'));
      await Promise.all([...entries.values()].map(({ making }) => making));
    },
  };
}

function newEntry(template: Template, nowMs: number): Entry {
  const { id, shape } = template;
  const { owner, cpuCount, memoryMib, kernelPath } = shape;
  return {
    template,
    status: {
      ...{ id, owner, cpuCount, memoryMib, kernelPath, phase: 'building' },
      ...{ diskBytes: memoryMib * 2 ** 20, createdAtMs: 0, useCount: 0, message: '' },
    },
    files: [],
    usedAtMs: nowMs,
    making: undefined,
    life: new AbortController(),
  };
}

/** Those that are whole and of this host as it is now; all else in the directory is removed. */
async function loadTemplates(options: TemplatesOptions): Promise<Map<string, Entry>> {
  const { directory, clock, log } = options;
  const entries = new Map<string, Entry>();
  await mkdir(directory, { recursive: true, mode: 0o700 });
  for (const name of await readdir(directory)) {
    const path = join(directory, name);
    const manifest = parseManifest(await readFileIfExists(join(path, MANIFEST)));
    const isOfNow =
      manifest !== undefined &&
      (await templateId(manifest.shape, await options.host()).catch(() => '')) === name;
    if (!isOfNow) {
      log.info('template of another state of this host removed', { template: name });
      await rm(path, { recursive: true, force: true });
      continue;
    }
    const template = { id: name, directory: path, shape: manifest.shape };
    const entry = newEntry(template, clock.monotonicMs());
    entry.files = manifest.files;
    const diskBytes = manifest.files.reduce((sum, { bytes }) => sum + bytes, 0);
    Object.assign(entry.status, { phase: 'ready', diskBytes, createdAtMs: manifest.createdAtMs });
    entries.set(name, entry);
  }
  return entries;
}

function parseManifest(text: string | undefined): Manifest | undefined {
  try {
    return text === undefined ? undefined : (JSON.parse(text) as Manifest);
  } catch {
    return undefined;
  }
}

async function describeFiles(directory: string): Promise<Manifest['files']> {
  const names = (await readdir(directory)).filter((name) => name !== MANIFEST).sort();
  return Promise.all(
    names.map(async (name) => {
      const { size: bytes } = await stat(join(directory, name));
      return { name, bytes, sha256: await digest(join(directory, name), bytes) };
    }),
  );
}

async function digest(path: string, bytes: number): Promise<string | null> {
  if (bytes > DIGEST_BYTES_MAX) return null;
  return createHash('sha256')
    .update(await readFile(path))
    .digest('hex');
}

/** What is wrong with its files; undefined when they are as they were made. */
async function findDamage({ template, files }: Entry): Promise<string | undefined> {
  for (const { name, bytes, sha256 } of files) {
    const path = join(template.directory, name);
    const { size } = await stat(path);
    if (size !== bytes) return `"${name}" has ${size} bytes, wanted ${bytes}`;
    if (sha256 !== null && (await digest(path, size)) !== sha256) return `"${name}" has changed`;
  }
  return undefined;
}
