import { mkdir, open, readdir, rm, stat } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import type { AuditLimits } from './log.ts';

/** A file of the log, as far as it is written and its lines are whole. */
export interface AuditFile {
  path: string;
  /** Whose it is: a tenant's name may be used again by another one. */
  owner: string;
  startMs: number;
  size: number;
  /** Of the last write. */
  lastMs: number;
}

/** The files of one log, in the order of time; the last one of an owner grows. */
export interface Shelf {
  files(): readonly AuditFile[];
  /** Appends lines. What could not be written is lost; the file stays readable. */
  append(owner: string, text: string, nowMs: number): Promise<void>;
  /** Removes what is too old, and the oldest beyond the bound of all together. */
  trim(nowMs: number): Promise<void>;
  /** Lets go of the open file; the next append opens it again. */
  release(): Promise<void>;
  readonly isOpen: boolean;
}

const FILE_NAME = /^(\d{15})\.([0-9a-z-]{1,64})\.jsonl$/;
const DIRECTORY_MODE = 0o700;
const FILE_MODE = 0o600;

export async function openShelf(directory: string, limits: AuditLimits): Promise<Shelf> {
  const files = await readFiles(directory);
  let current: { file: AuditFile; handle: FileHandle } | undefined;

  const release = async () => {
    const { handle } = current ?? {};
    current = undefined;
    await handle?.close();
  };

  const begin = async (owner: string, nowMs: number) => {
    await mkdir(directory, { recursive: true, mode: DIRECTORY_MODE });
    // Names are unique and in order even when the clock stands still or goes back.
    const startMs = Math.max(nowMs, (files.at(-1)?.startMs ?? 0) + 1);
    const name = `${String(startMs).padStart(15, '0')}.${owner}.jsonl`;
    const path = join(directory, name);
    const handle = await open(path, 'wx', FILE_MODE);
    const file: AuditFile = { path, owner, startMs, size: 0, lastMs: nowMs };
    files.push(file);
    current = { file, handle };
    return current;
  };

  const fits = ({ owner: own, size, startMs }: AuditFile, owner: string, nowMs: number) =>
    own === owner && size < limits.fileBytes && nowMs - startMs < limits.fileAgeMs;

  const writable = async (owner: string, nowMs: number) => {
    if (current && fits(current.file, owner, nowMs)) return current;
    await release();
    const last = files.at(-1);
    if (!last || !fits(last, owner, nowMs)) return begin(owner, nowMs);
    const handle = await open(last.path, 'a', FILE_MODE);
    // A process that was killed, or a full disk, may have left half a line.
    if (last.size > 0) await handle.appendFile('\n');
    last.size = (await handle.stat()).size;
    current = { file: last, handle };
    return current;
  };

  return {
    files: () => files,
    get isOpen() {
      return current !== undefined;
    },
    release,

    async append(owner, text, nowMs) {
      const { file, handle } = await writable(owner, nowMs);
      try {
        const bytes = Buffer.from(text, 'utf8');
        await handle.appendFile(bytes);
        file.size += bytes.length;
        file.lastMs = nowMs;
      } catch (error) {
        await release().catch(() => {});
        throw error;
      }
    },

    async trim(nowMs) {
      let total = files.reduce((sum, { size }) => sum + size, 0);
      for (let first = files[0]; first; first = files[0]) {
        const isOld = nowMs - first.lastMs > limits.keepMs;
        const isTooMuch = total > limits.bytesPerLog && files.length > 1;
        if (!isOld && !isTooMuch) break;
        if (first === current?.file) await release();
        await rm(first.path, { force: true });
        total -= first.size;
        files.shift();
      }
    },
  };
}

async function readFiles(directory: string): Promise<AuditFile[]> {
  const files: AuditFile[] = [];
  const names = await readdir(directory).catch(() => []);
  for (const name of names.sort()) {
    const [, startMs, owner = ''] = FILE_NAME.exec(name) ?? [];
    if (!startMs) continue;
    const path = join(directory, name);
    const { size, mtimeMs } = await stat(path);
    files.push({ path, owner, startMs: Number(startMs), size, lastMs: mtimeMs });
  }
  return files;
}
