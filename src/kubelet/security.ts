import type { Container, Pod, SecurityContext } from '../api/types.generated.ts';
import type { ImageStatus, ProcessSpec } from '../api/hyperd.ts';
import { ContainerConfigError } from './errors.ts';

/** What containerd grants a container that says nothing. */
const DEFAULT_CAPABILITIES = [
  'CHOWN',
  'DAC_OVERRIDE',
  'FSETID',
  'FOWNER',
  'MKNOD',
  'NET_RAW',
  'SETGID',
  'SETUID',
  'SETFCAP',
  'SETPCAP',
  'NET_BIND_SERVICE',
  'SYS_CHROOT',
  'KILL',
  'AUDIT_WRITE',
];

/** All that Linux 6 knows; `privileged` and `add: [ALL]` mean these. */
const ALL_CAPABILITIES = [
  ...DEFAULT_CAPABILITIES,
  'AUDIT_CONTROL',
  'AUDIT_READ',
  'BLOCK_SUSPEND',
  'BPF',
  'CHECKPOINT_RESTORE',
  'DAC_READ_SEARCH',
  'IPC_LOCK',
  'IPC_OWNER',
  'LEASE',
  'LINUX_IMMUTABLE',
  'MAC_ADMIN',
  'MAC_OVERRIDE',
  'NET_ADMIN',
  'NET_BROADCAST',
  'PERFMON',
  'SYS_ADMIN',
  'SYS_BOOT',
  'SYS_MODULE',
  'SYS_NICE',
  'SYS_PACCT',
  'SYS_PTRACE',
  'SYS_RAWIO',
  'SYS_RESOURCE',
  'SYS_TIME',
  'SYS_TTY_CONFIG',
  'SYSLOG',
  'WAKE_ALARM',
];

export type ProcessIdentity = Pick<ProcessSpec, 'user' | 'gid' | 'supplementalGroups' | 'security'>;

/**
 * Who a container's process is and what it may do. The container's own settings come before the
 * pod's, and both before the image's user.
 * @throws ContainerConfigError where `runAsNonRoot` cannot be kept
 */
export function processIdentity(
  pod: Pod,
  container: Container,
  image: ImageStatus,
): ProcessIdentity {
  const ofPod = pod.spec?.securityContext ?? {};
  const own: SecurityContext = container.securityContext ?? {};
  const uid = own.runAsUser ?? ofPod.runAsUser;
  const gid = own.runAsGroup ?? ofPod.runAsGroup;
  const runAsNonRoot = own.runAsNonRoot ?? ofPod.runAsNonRoot ?? false;
  if (runAsNonRoot) refuseRoot(pod, container, image, uid);
  const privileged = own.privileged ?? false;
  const seccomp = own.seccompProfile ?? ofPod.seccompProfile;
  return {
    user: uid === undefined ? image.config.user : String(uid),
    ...(gid === undefined ? {} : { gid }),
    supplementalGroups: supplementalGroups(pod),
    security: {
      privileged,
      runAsNonRoot,
      noNewPrivileges: own.allowPrivilegeEscalation === false,
      capabilities: capabilities(own, privileged),
      seccompDefault: seccomp?.type === 'RuntimeDefault' && !privileged,
    },
  };
}

function supplementalGroups(pod: Pod): number[] {
  const { supplementalGroups = [], fsGroup } = pod.spec?.securityContext ?? {};
  return [
    ...new Set(fsGroup === undefined ? supplementalGroups : [...supplementalGroups, fsGroup]),
  ];
}

function refuseRoot(pod: Pod, container: Container, image: ImageStatus, uid?: number): void {
  const { name, namespace, uid: podUid } = pod.metadata;
  const subject = `(pod: "${name}_${namespace}(${podUid})", container: ${container.name})`;
  const fail = (message: string) => {
    throw new ContainerConfigError('CreateContainerConfigError', `${message} ${subject}`);
  };
  if (uid === 0) fail("container's runAsUser breaks non-root policy");
  if (uid !== undefined) return;
  const imageUser = image.config.user.split(':')[0] ?? '';
  if (imageUser === '' || /^0+$/.test(imageUser)) {
    fail('container has runAsNonRoot and image will run as root');
  }
  if (!/^[0-9]+$/.test(imageUser)) {
    fail(
      `container has runAsNonRoot and image has non-numeric user (${imageUser}), ` +
        'cannot verify user is non-root',
    );
  }
}

function capabilities(own: SecurityContext, privileged: boolean): string[] {
  if (privileged) return named(ALL_CAPABILITIES);
  const add = (own.capabilities?.add ?? []).map(bareName);
  const drop = (own.capabilities?.drop ?? []).map(bareName);
  const granted = new Set(drop.includes('ALL') ? [] : DEFAULT_CAPABILITIES);
  if (add.includes('ALL')) for (const name of ALL_CAPABILITIES) granted.add(name);
  for (const name of drop) granted.delete(name);
  for (const name of add) if (ALL_CAPABILITIES.includes(name)) granted.add(name);
  return named([...granted]);
}

function bareName(name: string): string {
  return name.toUpperCase().replace(/^CAP_/, '');
}

function named(names: string[]): string[] {
  return names.map((name) => `CAP_${name}`);
}
