import { once } from 'node:events';
import { createPrivateKey, randomBytes } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Duplex } from 'node:stream';
import type { Readable, Writable } from 'node:stream';
import type { KubeObject } from '../../../src/api/object.ts';
import type { Pod } from '../../../src/api/types.generated.ts';
import { systemClock } from '../../../src/base/clock.ts';
import { start } from '../../../src/base/exec.ts';
import { systemRandom } from '../../../src/base/random.ts';
import { createCaSigner, createKey } from '../../../src/auth/pki.ts';
import type { KeyPair } from '../../../src/auth/pki.ts';
import { createCertificate, publicKeyOf, subjectOf } from '../../../src/auth/x509.ts';
import { dataPaths } from '../../../src/cli/config.ts';
import type { DataPaths } from '../../../src/cli/config.ts';
import { pushDemoImage } from '../../../src/cli/demo/demo-image.ts';
import { PODS, TENANTS } from '../../../src/client/resources.ts';
import { startCluster } from '../../e2e/support/cluster.ts';
import type { TestCluster } from '../../e2e/support/cluster.ts';
import { findKubectls } from '../../e2e/support/kubectl.ts';
import { waitFor } from '../../e2e/support/wait.ts';
import { embeddedBackend } from './backends.ts';
import { createAttackClient } from './client.ts';
import type { Answer, AttackClient, Credential } from './client.ts';
import { shows } from './attempt.ts';
import type { Attempt, Scene } from './attempt.ts';
import { knock } from './knock.ts';
import type { Knock } from './knock.ts';
import type { Who } from './world.ts';

/** The victim's pod, the attacker's, and the namespaces that they are in. */
export const TARGET = { namespace: 'acme', name: 'web' };
export const BASE = { namespace: 'globex', name: 'base' };
/** Where the victim's pod serves its canary, as a file of that name too. */
export const SERVED = { port: 8080, file: '/tmp/www/index.html' };

/** Who there is in a cluster: people of both tenants, the attacker's pod, and the operator. */
export type Name = 'operator' | 'alice' | 'bob' | 'robot';

/**
 * A cluster with VMs that run. The victim's pod prints a canary, serves it, and has it in a file
 * and in its environment.
 */
export interface ClusterScene extends Scene, AsyncDisposable {
  cluster: TestCluster;
  paths: DataPaths;
  image: string;
  canary: string;
  target: Pod;
  /** Where pods find the node. */
  nodeAddress: string;
  nodeName: string;
  kubectlPath: string;
  token(who: Who): string;
  kubeconfig(who: Who): string;
  /** Of the cluster's CA. */
  certificate(name: string, groups: string[]): KeyPair;
  /** The real kubectl; all that it says, until it ends or shows a canary. */
  kubectl(who: Who, ...args: string[]): Promise<Answer>;
  /** A shell's command in the pod of Alice or else of Bob; standard output and error. */
  inPod(who: Who, command: string): Promise<Answer>;
  /** TLS to a port of the node. All that it says, until it ends or shows a canary. */
  knock(asked: Asked): Promise<Answer>;
  /** The same by a connection that is made inside Bob's pod. @default CONNECT_WAIT_SECONDS */
  knockFromPod(asked: Asked, waitSeconds?: number): Promise<Answer>;
}

export type Asked = Pick<Knock, 'port' | 'request'> & Partial<Pick<Knock, 'pair' | 'until'>>;

export type ClusterAttempt = Attempt<ClusterScene>;

export const answer = (status: number, text: string): Answer => {
  return { status, headers: {}, text, tookMs: 0 };
};
/** Path of the victim's pod. */
export const POD = `/api/v1/namespaces/${TARGET.namespace}/pods/${TARGET.name}`;
export const showsCanary = shows<ClusterScene>(({ canary }) => canary);

/** For what has to come: on a busy machine an emulated guest takes its time. */
export const CONNECT_WAIT_SECONDS = 45;
/** What must not come is waited for as long as it would take several times. */
export const REFUSED_WAIT_SECONDS = 2;
const COMMAND_TIMEOUT_MS = 60_000;
const PASSWORD = 'correct horse battery staple';

/** A cluster with both tenants, once their pods run. */
export async function startClusterScene(): Promise<ClusterScene> {
  const cluster = await startCluster();
  const directory = await mkdtemp(join(tmpdir(), 'attack-'));
  const paths = dataPaths(cluster.dataDir);
  const ca = await readFile(paths.caCert, 'utf8');
  const client = createAttackClient(cluster.apiPort, ca);
  const dispose = async () => {
    client.close();
    await rm(directory, { recursive: true, force: true });
    await cluster[Symbol.asyncDispose]();
  };
  try {
    return await settle({ cluster, directory, paths, ca, client }, dispose);
  } catch (error) {
    await dispose();
    throw error;
  }
}

interface Base {
  cluster: TestCluster;
  directory: string;
  paths: DataPaths;
  ca: string;
  client: AttackClient;
}

async function settle(base: Base, dispose: () => Promise<void>): Promise<ClusterScene> {
  const { cluster, paths, client, directory } = base;
  const pki = (name: string) => readFile(join(paths.pki, name), 'utf8');
  const operator = { pair: { cert: await pki('admin.crt'), key: await pki('admin.key') } };
  const credentials: Record<Name, Credential> = { operator, alice: {}, bob: {}, robot: {} };
  const nameOf = (who: Who) => who as Name;
  const send: Scene['send'] = (who, request) => client.send(credentials[nameOf(who)], request);
  const canary = `canary-${randomBytes(8).toString('hex')}`;
  const image = await pushDemoImage(cluster.registryPort);
  Object.assign(credentials, await enrol(base, send));
  const pods = await Promise.all([
    runPod(cluster, TARGET, image, canary),
    runPod(cluster, BASE, image, 'none'),
  ]);
  const [target] = pods as [Pod, Pod];
  const kubectls = await findKubectls(cluster.kubeconfig, join(directory, 'cache'));
  const kubectlPath = kubectls.at(-1)?.path ?? 'kubectl';
  const kubeconfig = (who: Who) => join(directory, `${nameOf(who)}.json`);
  const isEnough = (text: string) => text.includes(canary);
  const own = (who: Who) => (who === 'alice' ? TARGET : BASE);
  const scene: ClusterScene = {
    ...{ cluster, paths, image, canary, target, kubectlPath, kubeconfig, send },
    canaries: [
      canary,
      ...(target.status?.containerStatuses ?? []).map(({ containerID = '' }) => containerID),
    ],
    nodeAddress: target.status?.hostIP ?? '',
    nodeName: target.spec?.nodeName ?? '',
    certificate: signerOf(base.ca, await pki('ca.key')),
    token: (who) => credentials[nameOf(who)].token ?? '',
    kubectl: (who, ...args) => listen(kubectlPath, [...options(who), ...args], isEnough),
    inPod(who, command) {
      const { namespace, name } = own(who);
      return scene.kubectl(who, 'exec', '-n', namespace, name, '--', 'sh', '-c', command);
    },
    knock: (asked) => knock({ host: '127.0.0.1', until: isEnough, ...asked }),
    async knockFromPod(asked, waitSeconds = CONNECT_WAIT_SECONDS) {
      const [host, port] = [scene.nodeAddress, asked.port];
      const { namespace, name } = BASE;
      const nc = ['nc', '-w', `${waitSeconds}`, host, `${port}`];
      const dial = ['exec', '-i', '-n', namespace, name, '--', ...nc];
      await using tunnel = openTunnel(kubectlPath, [...options('bob'), ...dial]);
      return await knock({ host, until: isEnough, ...asked, through: tunnel.stream });
    },
    fingerprint: () => fingerprintOf(send),
    [Symbol.asyncDispose]: dispose,
  };
  const options = (who: Who) => [
    ...['--kubeconfig', kubeconfig(who), '--cache-dir', join(directory, `cache-${nameOf(who)}`)],
  ];
  const files = (['operator', 'alice', 'bob'] as const).map((who) =>
    writeKubeconfig(kubeconfig(who), base, credentials[who]),
  );
  await Promise.all(files);
  credentials.robot = { token: await podToken(scene) };
  await writeKubeconfig(kubeconfig('robot'), base, credentials.robot);
  return scene;
}

/** What a pod of the attacker's finds in itself. */
async function podToken({ inPod }: ClusterScene): Promise<string> {
  const { text } = await inPod('bob', 'cat /var/run/secrets/kubernetes.io/serviceaccount/token');
  return text.trim();
}

/** Everything of the victim's pod but its conditions and their times. */
async function fingerprintOf(send: Scene['send']): Promise<string> {
  const path = `/api/v1/namespaces/${TARGET.namespace}/pods`;
  const { text } = await send('operator', { path });
  const { items } = JSON.parse(text) as { items: Pod[] };
  const kept = items.map(({ metadata, spec, status }) => {
    const restarts = status?.containerStatuses?.map(({ restartCount }) => restartCount);
    const { resourceVersion: _, managedFields: __, ...named } = metadata;
    return { named, spec, phase: status?.phase, restarts };
  });
  return JSON.stringify(kept);
}

async function writeKubeconfig(file: string, base: Base, credential: Credential): Promise<void> {
  const base64 = (text: string) => Buffer.from(text).toString('base64');
  const server = `https://127.0.0.1:${base.cluster.apiPort}`;
  const { token, pair } = credential;
  const user = pair
    ? { 'client-certificate-data': base64(pair.cert), 'client-key-data': base64(pair.key) }
    : { token };
  const config = {
    ...{ apiVersion: 'v1', kind: 'Config', 'current-context': 'c' },
    clusters: [{ name: 'c', cluster: { server, 'certificate-authority-data': base64(base.ca) } }],
    contexts: [{ name: 'c', context: { cluster: 'c', user: 'c' } }],
    users: [{ name: 'c', user }],
  };
  await writeFile(file, JSON.stringify(config), { mode: 0o600 });
}

/** Both tenants with a person each that has all rights there, and a pod's account of Bob's. */
async function enrol(
  { paths, cluster, client, ca }: Base,
  send: Scene['send'],
): Promise<Pick<Record<Name, Credential>, 'alice' | 'bob'>> {
  await using backend = embeddedBackend();
  const identity = await backend.harness({ paths, port: cluster.apiPort, client, ca });
  const create = async (path: string, body: object) => {
    const { status, text } = await send('operator', { method: 'POST', path, body });
    if (status !== 201) throw new Error(`POST ${path}: ${status} ${text}`);
  };
  const person = async (name: string, tenant: string): Promise<Credential> => {
    await create('/apis/hypernetes.io/v1/tenants', { metadata: { name: tenant }, spec: {} });
    const active = await waitFor(cluster.client, TENANTS, { name: tenant }, (one) =>
      Boolean(one?.status?.phase === 'Active' && one.status.projectID),
    );
    const labels = { 'hypernetes.io/tenant': tenant };
    await create('/api/v1/namespaces', { metadata: { name: tenant, labels } });
    const { id } = await identity.createUser(name, PASSWORD, identity.domain.id);
    const project = active?.status?.projectID ?? '';
    await identity.assign({
      kind: 'user',
      id,
      role: 'admin',
      on: { kind: 'project', id: project },
    });
    const { name: domain } = identity.domain;
    const login = { method: 'password' as const, username: name, password: PASSWORD, domain };
    return { token: await identity.issueToken(login, { projectId: project }) };
  };
  const [alice, bob] = await Promise.all([
    person('alice', TARGET.namespace),
    person('bob', BASE.namespace),
  ]);
  const rbac = 'rbac.authorization.k8s.io';
  await create(`/apis/${rbac}/v1/namespaces/${BASE.namespace}/rolebindings`, {
    metadata: { name: 'robot' },
    roleRef: { apiGroup: rbac, kind: 'ClusterRole', name: 'admin' },
    subjects: [{ kind: 'ServiceAccount', namespace: BASE.namespace, name: 'default' }],
  });
  await identity.provider.close();
  return { alice, bob };
}

async function runPod(
  cluster: TestCluster,
  { namespace, name }: typeof TARGET,
  image: string,
  canary: string,
): Promise<Pod> {
  const { port, file } = SERVED;
  const serve = `mkdir -p /tmp/www; echo $CANARY >${file}; httpd -p ${port} -h /tmp/www`;
  const script = `${serve}; while :; do echo $CANARY; sleep 1; done`;
  const main = {
    ...{ name: 'main', image, command: ['/bin/sh', '-c', script] },
    env: [{ name: 'CANARY', value: canary }],
  };
  const pod: Pod & KubeObject = {
    ...{ apiVersion: 'v1', kind: 'Pod' },
    metadata: { namespace, name, labels: { app: name } },
    spec: { terminationGracePeriodSeconds: 0, containers: [main] },
  };
  // The namespace's account comes a moment after the namespace.
  for (let tries = 1; ; tries += 1) {
    try {
      await cluster.client.create(PODS, pod);
      break;
    } catch (error) {
      if (tries > 100 || !String(error).includes('serviceaccount')) throw error;
      await systemClock.sleep(50);
    }
  }
  const isReady = (one: Pod | undefined) => one?.status?.containerStatuses?.[0]?.ready === true;
  const ready = (await waitFor(cluster.client, PODS, { namespace, name }, isReady)) as Pod;
  await untilPrinted(cluster, `/api/v1/namespaces/${namespace}/pods/${name}/log`, canary);
  return ready;
}

/** The script's first line comes when all that the pod serves is served. */
async function untilPrinted({ transport }: TestCluster, path: string, text: string): Promise<void> {
  const signal = AbortSignal.timeout(COMMAND_TIMEOUT_MS);
  const query = { follow: 'true' };
  const response = await transport.request({ method: 'GET', path, query, signal });
  let log = '';
  for await (const chunk of response.body) {
    log += Buffer.from(chunk).toString();
    if (log.includes(text)) return;
  }
  throw new Error(`${path} ended without "${text}": ${log}`);
}

function signerOf(caCert: string, caKey: string): ClusterScene['certificate'] {
  const environment = { clock: systemClock, random: systemRandom };
  const signer = createCaSigner({ caCert, caKey, ...environment });
  return (name, groups) => signer.clientPair(name, groups);
}

/** What a program says, until it ends, has said enough or takes too long; 403 where it failed. */
async function listen(
  command: string,
  args: string[],
  isEnough: (text: string) => boolean,
): Promise<Answer> {
  const startMs = performance.now();
  const child = start(command, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  const timer = systemClock.after(COMMAND_TIMEOUT_MS, () => child.kill('SIGKILL'));
  let text = '';
  let enough = false;
  for (const stream of [child.stdout, child.stderr]) {
    stream?.on('data', (chunk: Buffer) => {
      text += chunk.toString();
      enough ||= isEnough(text);
      if (enough) child.kill('SIGKILL');
    });
  }
  const [code] = (await once(child, 'close')) as [number | null];
  timer.cancel();
  const status = enough || code === 0 ? 200 : 403;
  return { status, headers: {}, text, tookMs: performance.now() - startMs };
}

/** A program's input and output as a connection. */
function openTunnel(command: string, args: string[]): { stream: Duplex } & AsyncDisposable {
  const child = start(command, args, { stdio: ['pipe', 'pipe', 'ignore'] });
  const exited = once(child, 'close');
  const { stdin, stdout } = child;
  if (!stdin || !stdout) throw new Error(`${command} has no input and output`);
  stdin.on('error', () => {});
  return {
    stream: duplexOf(stdin, stdout),
    async [Symbol.asyncDispose]() {
      child.kill('SIGKILL');
      await exited;
    },
  };
}

function duplexOf(writable: Writable, readable: Readable): Duplex {
  // The types of Node know web streams alone in this place.
  return Duplex.from({ writable, readable } as unknown as Parameters<typeof Duplex.from>[0]);
}

const HOUR_MS = 3_600_000;

/** By nobody's authority but its own. */
export function selfSigned(name: string, groups: string[]): KeyPair {
  const key = createKey();
  const ownKey = createPrivateKey(key);
  const nowMs = systemClock.nowMs();
  const fields = {
    ...{ subject: subjectOf(name, groups), publicKey: publicKeyOf(ownKey) },
    ...{ serial: Buffer.from([1]), isCa: true, usages: ['digital signature' as const] },
    ...{ notBeforeMs: nowMs - HOUR_MS, notAfterMs: nowMs + HOUR_MS },
  };
  return { key, cert: createCertificate(fields, { ownKey }) };
}
