import type { ProcessSpec } from '../../api/hyperd.ts';
import type { Random } from '../../base/random.ts';
import type { GuestContainerSpec, PodSetup } from './agent.ts';

/** Pods and containers of hyperd's own, in guests that are nobody's: nothing that a tenant asked for. */

const ENTROPY_BYTES = 64;

/** What makes a guest's random numbers its own, as `PodSetup` wants it. */
export function freshEntropy(random: Random): string {
  return Buffer.from(random.bytes(ENTROPY_BYTES)).toString('base64');
}

type GivenSetup = Pick<PodSetup, 'hostname' | 'epochMs' | 'entropy' | 'scratchSerial'>;

/** A pod without network, names and volumes but for what is given. */
export function ownSetup(given: GivenSetup & Partial<PodSetup>): PodSetup {
  return {
    domain: '',
    network: null,
    dns: { nameservers: [], searches: [], options: [] },
    hostAliases: [],
    sysctls: {},
    shareProcessNamespace: false,
    volumes: [],
    ...given,
  };
}

type GivenContainer = Pick<GuestContainerSpec, 'id' | 'imageSerial'> & {
  process: Pick<ProcessSpec, 'argv' | 'env'>;
  /** @default none */
  capabilities?: string[];
};

/** A program of root with few rights. */
export function ownContainer(
  { id, imageSerial, process, capabilities = [] }: GivenContainer,
  overrides: Partial<GuestContainerSpec> = {},
): GuestContainerSpec {
  return {
    id,
    name: id,
    imageSerial,
    imageFsType: 'erofs',
    process: {
      ...process,
      workingDir: '/',
      user: '',
      supplementalGroups: [],
      tty: false,
      security: {
        privileged: false,
        runAsNonRoot: false,
        noNewPrivileges: true,
        capabilities,
        seccompDefault: true,
      },
    },
    readOnlyRootfs: false,
    mounts: [],
    resources: { cpuMillis: 0, cpuWeightMillis: 100, memoryBytes: 0 },
    terminationMessagePath: '/dev/termination-log',
    stdin: false,
    ...overrides,
  };
}
