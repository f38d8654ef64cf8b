import { hostname } from 'node:os';
import { join, resolve } from 'node:path';
import type { MachineType } from '../hyperd/vmm/qemu/models.ts';

/** Where everything of one machine's Hypernetes lies, beneath one data directory. */
export interface DataPaths {
  root: string;
  /** What set-up made: guest kernel, initramfs, hyperjail. Several data directories may share it. */
  assets: string;
  pki: string;
  adminKubeconfig: string;
  /** For OpenStack's clients: the administrator of the embedded identity service. */
  adminOpenrc: string;
  /** The cluster's CA, for clients. */
  caCert: string;
  storeFile: string;
  /** Who asked what of the API: a directory for each tenant. */
  audit: string;
  node: string;
  hyperd: string;
  images: string;
  registry: string;
  network: string;
  /** Kernels of guests that were built or imported. */
  kernels: string;
  run: string;
  hyperdSocket: string;
  supervisorSocket: string;
  log: string;
  /** What `up` and `node` were started with; read by every component. */
  config: string;
}

const DEFAULT_DATA_DIRECTORY = '/var/lib/hypernetes';

/** Absolute: components and their sandboxes work in other directories. */
export function dataDirectory(option: string | undefined): string {
  return resolve(option ?? process.env.HYPERNETES_DATA_DIR ?? DEFAULT_DATA_DIRECTORY);
}

export function dataPaths(root: string): DataPaths {
  const run = join(root, 'run');
  return {
    root,
    assets: process.env.HYPERNETES_ASSETS_DIR ?? join(root, 'assets'),
    pki: join(root, 'server/pki'),
    adminKubeconfig: join(root, 'server/admin.kubeconfig'),
    adminOpenrc: join(root, 'server/admin.openrc'),
    caCert: join(root, 'server/pki/ca.crt'),
    storeFile: join(root, 'server/store.db'),
    audit: join(root, 'server/audit'),
    node: join(root, 'node'),
    hyperd: join(root, 'hyperd'),
    images: join(root, 'hyperd/images'),
    registry: join(root, 'hyperd/registry'),
    network: join(root, 'hyperd/network'),
    kernels: join(root, 'kernels'),
    run,
    hyperdSocket: join(run, 'hyperd.sock'),
    supervisorSocket: join(run, 'supervisor.sock'),
    log: join(root, 'log'),
    config: join(root, 'config.json'),
  };
}

/** The machine's name as a node name: RFC 1123, lower case. */
export function defaultNodeName(): string {
  const name = hostname()
    .toLowerCase()
    .replace(/[^a-z0-9.-]+/g, '-')
    .replace(/^[-.]+|[-.]+$/g, '');
  return name || 'node';
}

/** What this machine is in the cluster. */
export interface MachineConfig {
  /** Format of the data directory; another one is refused. */
  version: number;
  /** `standalone`: hyperd alone, without Kubernetes. Such a directory may become one of the others. */
  role: 'server' | 'node' | 'standalone';
  nodeName: string;
  /** Address under which other machines and pods reach this one. */
  address: string;
  apiPort: number;
  kubeletPort: number;
  /** Of the server's registry; on its nodes too, because references name it. */
  registryPort: number;
  /** For a node: where the server is, and how to join it. */
  server: { url: string; token: string } | null;
  /** The device model of VMs that are started; those that run keep theirs. */
  machine: MachineType;
  /** VMs that wait for pods on this machine: `adaptive`, `off`, or `fixed:N` of each kind. */
  warmPool: string;
  /** Pods that the scheduler may place on this machine. */
  maxPods: number;
  clusterCidr: string;
  serviceCidr: string;
  /** Addresses of pods that are no cluster's: those of hyperctl. */
  hyperctlCidr: string;
  /** hyperd's door for clients elsewhere; null: there is none. */
  hyperdDoor: DoorConfig | null;
  /** Whether tenants see nodes, without what tells of other tenants. */
  tenantNodes: 'hidden' | 'sanitised';
  /** The Keystone that people come from; null: the embedded identity service. */
  keystone: KeystoneConfig | null;
}

/** Absolute paths of PEM files. */
export interface DoorConfig {
  host: string;
  port: number;
  certFile: string;
  keyFile: string;
  /** Whoever has a certificate of it may do everything. */
  clientCaFile: string;
}

export interface KeystoneConfig {
  url: string;
  /** Absolute path of a file with the variables of OpenStack's clients. */
  credentialsFile: string;
  /** Absolute path of its CA; null: those that Node comes with. */
  caFile: string | null;
  /** Whether a project gets a tenant when one of its people first comes. */
  createsTenants: boolean;
}

export const DATA_VERSION = 1;

export const DEFAULT_PORTS = { api: 6443, kubelet: 10_250, registry: 5000 } as const;

/** Kubernetes' own default, and what the range of a node's pod addresses has room for. */
export const MAX_PODS = { default: 110, limit: 250 } as const;
