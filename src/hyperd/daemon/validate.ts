import type {
  AttachRequest,
  ExecRequest,
  HyperContainerSpec,
  HyperPodSpec,
  ProbeRequest,
  PullImage,
  VolumeFiles,
} from '../../api/hyperd.ts';
import { kernelNameProblem } from '../../api/kernels.ts';
import { invalid } from '../../api/status.ts';
import type { StatusCause } from '../../api/status.ts';

/**
 * Checks of what clients send. hyperd runs as root and makes paths, devices and command lines
 * out of these values, so each one has a form and a limit.
 */
export const LIMITS = {
  cpuCount: 64,
  memoryMib: 1024 * 1024,
  memoryMibMin: 48,
  scratchMib: 4 * 1024 * 1024,
  /** A second, in bytes or requests: beyond what disks do. */
  diskRate: 2 ** 40,
  volumeCount: 128,
  containerCount: 64,
  argvCount: 4096,
  envCount: 4096,
  /** All files of one volume, decoded. A ConfigMap or Secret has 1 MiB; projections join some. */
  volumeFileBytes: 8 << 20,
  volumeFileCount: 65_536,
} as const;

type Check = (value: unknown) => string | undefined;

const ID = /^[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?$/;
const VOLUME = /^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$/;
const HOST_NAME = /^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$/;

const text =
  (lengthMax = 4096): Check =>
  (value) =>
    typeof value === 'string' && value.length <= lengthMax && !value.includes('\0')
      ? undefined
      : `must be a string of at most ${lengthMax} characters without NUL`;

const matching =
  (pattern: RegExp): Check =>
  (value) =>
    typeof value === 'string' && pattern.test(value)
      ? undefined
      : `must match ${String(pattern)}, is ${JSON.stringify(value)?.slice(0, 100)}`;

const integer =
  (min: number, max: number): Check =>
  (value) =>
    Number.isInteger(value) && (value as number) >= min && (value as number) <= max
      ? undefined
      : `must be a whole number from ${min} to ${max}, is ${JSON.stringify(value)?.slice(0, 100)}`;

const listOf =
  (item: Check, countMax: number): Check =>
  (value) => {
    if (!Array.isArray(value)) return 'must be a list';
    if (value.length > countMax) return `must have at most ${countMax} items, has ${value.length}`;
    for (const [index, element] of value.entries()) {
      const problem = item(element);
      if (problem) return `item ${index} ${problem}`;
    }
    return undefined;
  };

const shape =
  (fields: Record<string, Check>): Check =>
  (value) => {
    if (typeof value !== 'object' || value === null) return 'must be an object';
    for (const [name, check] of Object.entries(fields)) {
      const problem = check((value as Record<string, unknown>)[name]);
      if (problem) return `${name} ${problem}`;
    }
    return undefined;
  };

const optional =
  (check: Check): Check =>
  (value) =>
    value === undefined || value === null ? undefined : check(value);

const oneOf =
  (...values: string[]): Check =>
  (value) =>
    values.includes(value as string)
      ? undefined
      : `must be one of ${values.join(', ')}, is ${JSON.stringify(value)?.slice(0, 100)}`;

/** Four for each three bytes begun. */
function base64Chars(bytes: number): number {
  return Math.ceil(bytes / 3) * 4;
}

const boolean: Check = (value) =>
  typeof value === 'boolean' ? undefined : 'must be true or false';
/** Milliseconds, also parts of one; 0 is none. */
const duration: Check = (value) =>
  typeof value === 'number' && value >= 0 && Number.isFinite(value)
    ? undefined
    : `must be a number of milliseconds, is ${JSON.stringify(value)?.slice(0, 100)}`;
const textMap: Check = (value) =>
  shape({})(value) ?? listOf(text(65536), 512)(Object.values(value as object));

const fileList = listOf(
  shape({
    path: text(),
    mode: integer(0, 0o7777),
    content: text(base64Chars(LIMITS.volumeFileBytes)),
    uid: optional(integer(0, 2 ** 32 - 2)),
    gid: optional(integer(0, 2 ** 32 - 2)),
  }),
  LIMITS.volumeFileCount,
);
const files: Check = (value) => {
  const problem = fileList(value);
  if (problem) return problem;
  const chars = (value as { content: string }[]).reduce(
    (sum, file) => sum + file.content.length,
    0,
  );
  return chars <= base64Chars(LIMITS.volumeFileBytes)
    ? undefined
    : `must have at most ${LIMITS.volumeFileBytes} bytes in all, has ${Math.floor(chars * 0.75)}`;
};

const FILES: Record<string, Check> = { version: integer(0, Number.MAX_SAFE_INTEGER), files };
const volume: Check = (value) =>
  shape({ name: matching(VOLUME), type: oneOf('scratch', 'memory', 'files') })(value) ??
  ((value as { type: string }).type === 'files'
    ? shape({ content: shape(FILES) })(value)
    : shape({ sizeLimitMib: integer(0, LIMITS.scratchMib) })(value));

const kernelName: Check = (value) =>
  typeof value === 'string' ? kernelNameProblem(value) : 'must be a string';

const POD: Record<string, Check> = {
  id: matching(ID),
  namespace: text(253),
  name: text(253),
  hostname: matching(HOST_NAME),
  domain: text(253),
  kernel: optional(kernelName),
  cpuCount: integer(1, LIMITS.cpuCount),
  memoryMib: integer(LIMITS.memoryMibMin, LIMITS.memoryMib),
  limits: shape({
    cpuMillis: integer(0, LIMITS.cpuCount * 1000),
    cpuWeightMillis: integer(0, LIMITS.cpuCount * 1000),
    memoryMib: integer(LIMITS.memoryMibMin, 2 * LIMITS.memoryMib),
    diskBytesPerSecond: optional(integer(0, LIMITS.diskRate)),
    diskOpsPerSecond: optional(integer(0, LIMITS.diskRate)),
  }),
  scratchMib: integer(16, LIMITS.scratchMib),
  network: optional(
    shape({
      id: matching(ID),
      cidr: text(64),
      gateway: text(64),
      // 0 takes that of the uplink; the driver has the lower bound.
      mtu: integer(0, 65535),
      nat: boolean,
    }),
  ),
  dns: shape({
    nameservers: listOf(text(64), 32),
    searches: listOf(text(253), 32),
    options: listOf(text(64), 32),
  }),
  hostAliases: listOf(shape({ ip: text(64), hostnames: listOf(text(253), 64) }), 256),
  sysctls: textMap,
  shareProcessNamespace: boolean,
  volumes: listOf(volume, LIMITS.volumeCount),
  labels: textMap,
};

const PROCESS: Check = shape({
  argv: listOf(text(1 << 20), LIMITS.argvCount),
  env: listOf(text(1 << 20), LIMITS.envCount),
  workingDir: text(),
  user: text(256),
  gid: optional(integer(0, 2 ** 32 - 2)),
  supplementalGroups: listOf(integer(0, 2 ** 32 - 2), 256),
  tty: boolean,
  security: shape({
    privileged: boolean,
    runAsNonRoot: boolean,
    noNewPrivileges: boolean,
    capabilities: listOf(matching(/^CAP_[A-Z_]{1,40}$/), 64),
    seccompDefault: boolean,
  }),
});

const CONTAINER: Record<string, Check> = {
  id: matching(ID),
  name: text(63),
  attempt: integer(0, 2 ** 31),
  imageId: matching(/^sha256:[0-9a-f]{64}$/),
  process: PROCESS,
  stopSignal: text(16),
  readOnlyRootfs: boolean,
  mounts: listOf(
    shape({
      volume: matching(VOLUME),
      path: matching(/^\/[^\0]*$/),
      subPath: text(),
      readOnly: boolean,
    }),
    256,
  ),
  resources: shape({
    cpuMillis: integer(0, LIMITS.cpuCount * 1000),
    cpuWeightMillis: integer(0, LIMITS.cpuCount * 1000),
    memoryBytes: integer(0, LIMITS.memoryMib * 1024 * 1024),
  }),
  terminationMessagePath: text(),
  terminationMessageFromLog: boolean,
  stdin: boolean,
  stdinOnce: boolean,
  labels: textMap,
};

const STREAMS: Record<string, Check> = { stdin: boolean, stdout: boolean, stderr: boolean };
const EXEC: Record<string, Check> = {
  ...STREAMS,
  process: PROCESS,
  timeoutMs: optional(duration),
};

const PULL: Record<string, Check> = {
  reference: text(512),
  credentials: listOf(shape({ username: text(), password: text(65536) }), 64),
  policy: oneOf('always', 'if-not-present', 'never'),
};

const TCP_PROBE: Record<string, Check> = {
  type: oneOf('tcp', 'http'),
  host: text(253),
  port: integer(1, 65535),
  timeoutMs: duration,
};
const HTTP_PROBE: Record<string, Check> = {
  ...TCP_PROBE,
  scheme: oneOf('http', 'https'),
  path: text(65536),
  headers: listOf(shape({ name: text(), value: text(65536) }), 256),
};

/** @throws StatusError Invalid, with one cause per field that is wrong. */
export function validatePodSpec(spec: HyperPodSpec): HyperPodSpec {
  return validate('HyperPod', spec?.id, POD, spec);
}

/** @throws StatusError Invalid, with one cause per field that is wrong. */
export function validateContainerSpec(spec: HyperContainerSpec): HyperContainerSpec {
  return validate('HyperContainer', spec?.id, CONTAINER, spec);
}

/** @throws StatusError Invalid. `process` may not be empty: exec has no image to look into. */
export function validateExec(request: ExecRequest): ExecRequest {
  return validate('ExecRequest', '', EXEC, request);
}

/** @throws StatusError Invalid */
export function validateAttach(request: AttachRequest): AttachRequest {
  return validate('AttachRequest', '', STREAMS, request);
}

/** @throws StatusError Invalid */
export function validatePull(request: PullImage): PullImage {
  return validate('PullImage', '', PULL, request);
}

/** @throws StatusError Invalid */
export function validateVolumeFiles(name: string, content: VolumeFiles): VolumeFiles {
  return validate('VolumeFiles', name, FILES, content);
}

/** @throws StatusError Invalid */
export function validateProbe(request: ProbeRequest): ProbeRequest {
  return validate('ProbeRequest', '', request?.type === 'tcp' ? TCP_PROBE : HTTP_PROBE, request);
}

function validate<T>(kind: string, name: string, fields: Record<string, Check>, value: T): T {
  const causes: StatusCause[] = [];
  const object = (typeof value === 'object' && value !== null ? value : {}) as Record<
    string,
    unknown
  >;
  for (const [field, check] of Object.entries(fields)) {
    const problem = check(object[field]);
    if (problem)
      causes.push({ reason: 'FieldValueInvalid', field, message: `Invalid value: ${problem}` });
  }
  if (causes.length > 0) throw invalid('', kind, String(name ?? ''), causes);
  return value;
}
