import { readFile, stat } from 'node:fs/promises';
import { basename } from 'node:path';
import { isIP } from 'node:net';
import type { HyperVolume, PortMapping } from '../../api/hyperd.ts';
import { quantityMillis } from '../../api/quantity.ts';
import type { Container, Pod, VolumeMount } from '../../api/types.generated.ts';
import { UsageError } from '../errors.ts';

/** What `run` can be told, in the words of docker. */
export interface RunOptions {
  detach?: boolean;
  interactive?: boolean;
  tty?: boolean;
  rm?: boolean;
  env?: string[];
  workdir?: string;
  user?: string;
  name?: string;
  hostname?: string;
  memory?: string;
  cpus?: string;
  publish?: string[];
  volume?: string[];
  entrypoint?: string;
  label?: string[];
  readOnly?: boolean;
  privileged?: boolean;
  kernel?: string;
  pull?: 'always' | 'missing' | 'never';
}

/** The container of a pod that `run` makes. */
export const RUN_CONTAINER = 'main';

const MIB = 1 << 20;
const FILE_BYTES_MAX = 1 << 20;

/** `512m`, `1g`, as docker has them (of 1024), or a Kubernetes quantity. @returns bytes */
export function parseMemory(text: string): number {
  const [, count = '', unit = ''] = /^(\d+(?:\.\d+)?)([bkmg])?$/i.exec(text) ?? [];
  const shift = { b: 0, k: 10, m: 20, g: 30 }[unit.toLowerCase()];
  if (count !== '' && (shift !== undefined || unit === ''))
    return Number(count) * 2 ** (shift ?? 0);
  try {
    return quantityMillis(text) / 1000;
  } catch {
    throw new UsageError(`Cannot read --memory "${text}": write it as 512m, 1g or 1Gi.`);
  }
}

/** `8080:80`, `127.0.0.1:8080:80`, `80` (any port of this machine), each with `/tcp` or without. */
export function parsePublish(text: string): PortMapping {
  const wrong = (why: string) =>
    new UsageError(`Cannot map "${text}": ${why}. Write it as [ADDRESS:][PORT:]CONTAINER-PORT.`);
  const [mapping = '', protocol = 'tcp'] = text.split('/');
  if (protocol !== 'tcp') throw wrong(`only TCP is mapped, not ${protocol}`);
  const [, bracketed, bare, host = '', guest = ''] =
    /^(?:\[([^\]]+)\]:|([\d.]+):(?=[^:]*:))?(?:(\d*):)?(\d+)$/.exec(mapping) ?? [];
  const hostAddress = bracketed ?? bare ?? '0.0.0.0';
  if (guest === '') throw wrong('it is no mapping of ports');
  if (isIP(hostAddress) === 0) throw wrong(`"${hostAddress}" is no address`);
  for (const port of [host || '0', guest]) {
    if (Number(port) > 65_535) throw wrong(`${port} is more than 65535`);
  }
  if (Number(guest) === 0) throw wrong('0 is no port of a container');
  return { hostAddress, hostPort: Number(host), guestPort: Number(guest) };
}

interface RunVolume {
  volume: HyperVolume;
  mount: VolumeMount;
}

const VOLUME_HELP =
  'A pod is a machine of its own: it sees no directory of this one. Write it as memory:SIZE:/path, ' +
  'scratch:/path, or FILE:/path for a copy of a file.';

/**
 * `memory:64m:/tmp`, `scratch:/data`, or `FILE:/path[:ro]`: the content of a file of this machine as
 * it is now, read-only.
 * @throws UsageError
 */
async function parseVolume(text: string, number: number): Promise<RunVolume> {
  const name = `volume-${number}`;
  const parts = text.split(':');
  if (parts.at(-1) === 'ro') parts.pop();
  const [first = '', second = '', third] = parts;
  const path = third ?? second;
  if (!path.startsWith('/') || parts.length > 3) {
    throw new UsageError(`Cannot use --volume "${text}". ${VOLUME_HELP}`);
  }
  if (first === 'memory' || (first === 'scratch' && parts.length === 2)) {
    const sizeLimitMib = parts.length === 3 ? Math.ceil(parseMemory(second) / MIB) : 0;
    return { volume: { name, type: first, sizeLimitMib }, mount: { name, mountPath: path } };
  }
  if (parts.length === 3) throw new UsageError(`Cannot use --volume "${text}". ${VOLUME_HELP}`);
  const content = await readVolumeFile(first, text);
  const file = basename(path);
  const files = [{ path: file, mode: 0o644, content: content.toString('base64') }];
  return {
    volume: { name, type: 'files', content: { version: 1, files } },
    mount: { name, mountPath: path, subPath: file, readOnly: true },
  };
}

async function readVolumeFile(path: string, option: string): Promise<Buffer> {
  const info = await stat(path).catch((error: Error) => {
    throw new UsageError(`Cannot use --volume "${option}": ${error.message}. ${VOLUME_HELP}`);
  });
  if (!info.isFile()) {
    throw new UsageError(`Cannot use --volume "${option}": "${path}" is no file. ${VOLUME_HELP}`);
  }
  if (info.size > FILE_BYTES_MAX) {
    throw new UsageError(
      `Cannot use --volume "${option}": it has ${info.size} bytes, at most ${FILE_BYTES_MAX} are copied.`,
    );
  }
  return readFile(path);
}

/** `NAME=value`, or `NAME` for what it is here. */
export function parseEnvironment(
  entries: string[],
  own: NodeJS.ProcessEnv = process.env,
): { name: string; value: string }[] {
  return entries.flatMap((entry) => {
    const [, name = '', value] = /^([^=]+)(?:=(.*))?$/s.exec(entry) ?? [];
    if (name === '') throw new UsageError(`Cannot use --env "${entry}": write it as NAME=value.`);
    const found = value ?? own[name];
    return found === undefined ? [] : [{ name, value: escapeReferences(found) }];
  });
}

/** Kubernetes would look for `$(NAME)` in them. */
function escapeReferences(text: string): string {
  return text.replaceAll('$', '$$$$');
}

function parseLabels(entries: string[]): Record<string, string> {
  return Object.fromEntries(
    entries.map((entry) => {
      const [, name = '', value = ''] = /^([^=]+)(?:=(.*))?$/s.exec(entry) ?? [];
      if (name === '') throw new UsageError(`Cannot use --label "${entry}".`);
      return [name, value];
    }),
  );
}

export interface RunPlan {
  pod: Pod;
  volumes: HyperVolume[];
  ports: PortMapping[];
}

/** The pod that a command line describes. @throws UsageError */
export async function planRun(
  name: string,
  image: string,
  command: string[],
  options: RunOptions,
): Promise<RunPlan> {
  const volumes: RunVolume[] = [];
  for (const [i, text] of (options.volume ?? []).entries()) {
    volumes.push(await parseVolume(text, i + 1));
  }
  const { entrypoint, workdir, interactive = false, tty = false, readOnly, privileged } = options;
  const words = command.map(escapeReferences);
  const security = { readOnlyRootFilesystem: readOnly ?? false, privileged: privileged ?? false };
  const container: Container = {
    ...{ name: RUN_CONTAINER, image, tty, stdin: interactive },
    ...(entrypoint === undefined ? {} : { command: [escapeReferences(entrypoint)] }),
    ...(words.length > 0 ? { args: words } : {}),
    ...(workdir === undefined ? {} : { workingDir: workdir }),
    env: parseEnvironment(options.env ?? []),
    resources: { limits: limits(options) },
    volumeMounts: volumes.map(({ mount }) => mount),
    securityContext: security,
  };
  const labels = parseLabels(options.label ?? []);
  const spec = { hostname: options.hostname ?? name, containers: [container] };
  return {
    pod: { apiVersion: 'v1', kind: 'Pod', metadata: { name, labels }, spec } as Pod,
    volumes: volumes.map(({ volume }) => volume),
    ports: (options.publish ?? []).map(parsePublish),
  };
}

/** `0.5`, `2` */
export function parseCpus(text: string): number {
  if (/^\d+(\.\d{1,3})?$/.test(text)) return Number(text);
  throw new UsageError(`Cannot read --cpus "${text}": write it as 1 or 0.5.`);
}

function limits({ memory, cpus }: RunOptions): Record<string, string> {
  return {
    ...(memory === undefined ? {} : { memory: String(Math.ceil(parseMemory(memory))) }),
    ...(cpus === undefined ? {} : { cpu: String(parseCpus(cpus)) }),
  };
}
