import { isIP } from 'node:net';
import type {
  AttachRequest,
  CreatePod,
  ExecRequest,
  HyperContainerSpec,
  HyperPodSpec,
  PoolLimit,
  PodResources,
  PortMapping,
  ProbeRequest,
  PullImage,
  PushImage,
  VolumeFiles,
} from '../../api/hyperd.ts';
import { kernelNameProblem } from '../../api/kernels.ts';
import { invalid } from '../../api/status.ts';
import type { StatusCause } from '../../api/status.ts';
import {
  boolean,
  described,
  duration,
  integer,
  listOf,
  matching,
  named,
  nullable,
  oneOf,
  optional,
  shape,
  text,
  textMap,
} from '../schema/checks.ts';
import type { Check, Fields } from '../schema/checks.ts';

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
  portCount: 64,
  argvCount: 4096,
  envCount: 4096,
  /** All files of one volume, decoded. A ConfigMap or Secret has 1 MiB; projections join some. */
  volumeFileBytes: 8 << 20,
  volumeFileCount: 65_536,
} as const;

const ID = /^[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?$/;
const VOLUME = /^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$/;
const HOST_NAME = /^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$/;

/** Four for each three bytes begun. */
function base64Chars(bytes: number): number {
  return Math.ceil(bytes / 3) * 4;
}

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
const files: Check = described(fileList.schema, (value) => {
  const problem = fileList(value);
  if (problem) return problem;
  const chars = (value as { content: string }[]).reduce(
    (sum, file) => sum + file.content.length,
    0,
  );
  return chars <= base64Chars(LIMITS.volumeFileBytes)
    ? undefined
    : `must have at most ${LIMITS.volumeFileBytes} bytes in all, has ${Math.floor(chars * 0.75)}`;
});

export const FILES: Fields<VolumeFiles> = { version: integer(0, Number.MAX_SAFE_INTEGER), files };
const fileVolume = shape({
  name: matching(VOLUME),
  type: oneOf('files'),
  content: named('VolumeFiles', shape(FILES)),
});
const sizedVolume = shape({
  name: matching(VOLUME),
  type: oneOf('scratch', 'memory'),
  sizeLimitMib: integer(0, LIMITS.scratchMib),
});
export const volume: Check = described(
  { oneOf: [fileVolume.schema, sizedVolume.schema] },
  (value) =>
    shape({ name: matching(VOLUME), type: oneOf('scratch', 'memory', 'files') })(value) ??
    ((value as { type: string }).type === 'files' ? fileVolume(value) : sizedVolume(value)),
);

export const PORT: Fields<PortMapping> = {
  hostAddress: described({ type: 'string', format: 'ip' }, (value) =>
    typeof value === 'string' && isIP(value) !== 0 ? undefined : 'must be an IP address',
  ),
  hostPort: integer(0, 65535),
  guestPort: integer(1, 65535),
};

const kernelName: Check = described({ type: 'string' }, (value) =>
  typeof value === 'string' ? kernelNameProblem(value) : 'must be a string',
);

const podLimits = shape({
  cpuMillis: integer(0, LIMITS.cpuCount * 1000),
  cpuWeightMillis: integer(0, LIMITS.cpuCount * 1000),
  memoryMib: integer(LIMITS.memoryMibMin, 2 * LIMITS.memoryMib),
  diskBytesPerSecond: optional(integer(0, LIMITS.diskRate)),
  diskOpsPerSecond: optional(integer(0, LIMITS.diskRate)),
});

export const POD: Fields<HyperPodSpec> = {
  id: matching(ID),
  namespace: text(253),
  name: text(253),
  hostname: matching(HOST_NAME),
  domain: text(253),
  owner: optional(text(253)),
  kernel: optional(kernelName),
  cpuCount: integer(1, LIMITS.cpuCount),
  memoryMib: integer(LIMITS.memoryMibMin, LIMITS.memoryMib),
  limits: podLimits,
  scratchMib: integer(16, LIMITS.scratchMib),
  network: nullable(
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
  volumes: listOf(named('HyperVolume', volume), LIMITS.volumeCount),
  labels: textMap,
  ports: optional(listOf(named('PortMapping', shape(PORT)), LIMITS.portCount)),
  whenDone: optional(oneOf('keep', 'stop', 'remove')),
};

export const PROCESS: Check = shape({
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

const containerResources = shape({
  cpuMillis: integer(0, LIMITS.cpuCount * 1000),
  cpuWeightMillis: integer(0, LIMITS.cpuCount * 1000),
  memoryBytes: integer(0, LIMITS.memoryMib * 1024 * 1024),
});

export const RESOURCES: Fields<PodResources> = {
  limits: podLimits,
  containers: listOf(
    shape({ id: matching(ID), resources: containerResources, labels: optional(textMap) }),
    LIMITS.containerCount,
  ),
};

export const CONTAINER: Fields<HyperContainerSpec> = {
  id: matching(ID),
  name: text(63),
  attempt: integer(0, 2 ** 31),
  imageId: matching(/^sha256:[0-9a-f]{64}$/),
  process: named('ProcessSpec', PROCESS),
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
  resources: containerResources,
  terminationMessagePath: text(),
  terminationMessageFromLog: boolean,
  stdin: boolean,
  stdinOnce: boolean,
  labels: textMap,
};

const STREAMS = { stdin: boolean, stdout: boolean, stderr: boolean };
export const ATTACH: Fields<AttachRequest> = { ...STREAMS, endStdin: optional(boolean) };
export const EXEC: Fields<ExecRequest> = {
  ...STREAMS,
  process: named('ProcessSpec', PROCESS),
  timeoutMs: optional(duration),
};

const credentials = listOf(shape({ username: text(), password: text(65536) }), 64);
export const PUSH: Fields<PushImage> = {
  reference: text(512),
  image: optional(text(512)),
  credentials,
};
export const PULL: Fields<PullImage> = {
  reference: text(512),
  credentials,
  policy: oneOf('always', 'if-not-present', 'never'),
};

export const TCP_PROBE: Record<string, Check> = {
  type: oneOf('tcp'),
  host: text(253),
  port: integer(1, 65535),
  timeoutMs: duration,
};
export const HTTP_PROBE: Record<string, Check> = {
  ...TCP_PROBE,
  type: oneOf('tcp', 'http'),
  scheme: oneOf('http', 'https'),
  path: text(65536),
  headers: listOf(shape({ name: text(), value: text(65536) }), 256),
};

/** @throws StatusError Invalid, with one cause per field that is wrong. */
export function validatePodSpec(spec: HyperPodSpec): HyperPodSpec {
  return validate('HyperPod', spec?.id, POD, spec);
}

export const CREATE: Fields<CreatePod> = {
  spec: named('HyperPodSpec', shape(POD)),
  containers: listOf(named('HyperContainerSpec', shape(CONTAINER)), LIMITS.containerCount),
  start: boolean,
};

/** @throws StatusError Invalid, also where two containers have one id or one name. */
export function validateCreate(request: CreatePod): CreatePod {
  const { spec, containers } = validate('CreatePod', request?.spec?.id, CREATE, request);
  for (const field of ['id', 'name'] as const) {
    const values = containers.map((container) => container[field]);
    const twice = values.find((value, index) => values.indexOf(value) !== index);
    if (twice === undefined) continue;
    const message = `Invalid value: two have the ${field} "${twice}"`;
    const cause = { reason: 'FieldValueDuplicate', field: 'containers', message };
    throw invalid('', 'CreatePod', spec.id, [cause]);
  }
  return request;
}

/** @throws StatusError Invalid, with one cause per field that is wrong. */
export function validateContainerSpec(spec: HyperContainerSpec): HyperContainerSpec {
  return validate('HyperContainer', spec?.id, CONTAINER, spec);
}

/** @throws StatusError Invalid, with one cause per field that is wrong. */
export function validateResources(resources: PodResources): PodResources {
  return validate('PodResources', '', RESOURCES, resources);
}

/** @throws StatusError Invalid. `process` may not be empty: exec has no image to look into. */
export function validateExec(request: ExecRequest): ExecRequest {
  return validate('ExecRequest', '', EXEC, request);
}

/** @throws StatusError Invalid */
export function validateAttach(request: AttachRequest): AttachRequest {
  return validate('AttachRequest', '', ATTACH, request);
}

/** @throws StatusError Invalid */
export function validatePull(request: PullImage): PullImage {
  return validate('PullImage', '', PULL, request);
}

/** @throws StatusError Invalid */
export function validatePush(request: PushImage): PushImage {
  return validate('PushImage', '', PUSH, request);
}

/** @throws StatusError Invalid */
export function validateVolumeFiles(name: string, content: VolumeFiles): VolumeFiles {
  return validate('VolumeFiles', name, FILES, content);
}

export const POOL_LIMIT: Fields<PoolLimit> = { memoryMib: optional(integer(0, 2 ** 31)) };

/** @throws StatusError Invalid */
export function validatePoolLimit(limit: PoolLimit): PoolLimit {
  return validate('PoolLimit', '', POOL_LIMIT, limit);
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
