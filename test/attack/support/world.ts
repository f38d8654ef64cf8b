import { fork } from 'node:child_process';
import { once } from 'node:events';
import { createPrivateKey, randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { KubeObject } from '../../../src/api/object.ts';
import { systemClock } from '../../../src/base/clock.ts';
import { systemRandom } from '../../../src/base/random.ts';
import { createCaSigner, createKey, ensurePki } from '../../../src/auth/pki.ts';
import type { KeyPair, Pki } from '../../../src/auth/pki.ts';
import { publicKeyOf, subjectOf } from '../../../src/auth/x509.ts';
import type { DataPaths, MachineConfig } from '../../../src/cli/config.ts';
import { dataPaths } from '../../../src/cli/config.ts';
import { prepareData, readConfig } from '../../../src/cli/data.ts';
import { prepareIdentities, serverHosts } from '../../../src/cli/identities.ts';
import { freePort } from '../../e2e/support/ports.ts';
import type { IdentityHarness, Login } from '../../../src/identity/conformance.ts';
import type { ApiCall } from '../../../src/identity/testing/api-harness.ts';
import type { IdentityBackend } from './backends.ts';
import { createAttackClient } from './client.ts';
import type { Answer, AttackClient, Credential, Request } from './client.ts';
import { buildVictim, VICTIM_NAMESPACES } from './victim.ts';

/** The tenant that is attacked, and the one that attacks. */
export const VICTIM = 'acme';
export const ATTACKER = 'globex';

/** Who asks. Alice is the victim's, Bob and Robot are the attacker's, each with all its rights. */
export type Who =
  'operator' | 'alice' | 'bob' | 'robot' | 'reader' | 'node1' | 'node2' | 'nobody' | Credential;

/** Somebody of the identity service, as they log in. */
export interface Person {
  id: string;
  login: Login;
  project: string;
}

/** A server with the two tenants, and everything that an attempt needs to know. */
export interface World extends AsyncDisposable {
  backend: string;
  port: number;
  pki: Pki;
  client: AttackClient;
  identity: IdentityHarness & { call: ApiCall };
  people: Record<'alice' | 'bob' | 'reader', Person>;
  credentials: Record<Exclude<Who, Credential>, Credential>;
  /** What only the victim knows: an answer to an attacker that has one of these is a leak. */
  canaries: string[];
  /** Uids of the victim's objects, by `resource/name`. */
  uids: Record<string, string>;
  /** The cluster's revision before the victim had anything. */
  firstRevision: string;
  send(who: Who, request: Request): Promise<Answer>;
  /** The same for what has to work; the answer's body. @throws Error where it does not */
  want<T = KubeObject>(who: Who, request: Request): Promise<T>;
  /** A person with a role in one of the two tenants. */
  newPerson(tenant: string, role: string): Promise<Person & { token: string }>;
  /** A tenant with a project, and an admin of it. */
  newTenant(name: string, parent?: string): Promise<Person & { token: string }>;
  certificate(name: string, groups: string[]): KeyPair;
  /** A token of a service account. */
  accountToken(namespace: string, name: string, spec?: object): Promise<string>;
  /** All that the victim has: no attempt may change it. */
  fingerprint(): Promise<string>;
}

const PASSWORD = 'correct horse battery staple';

/** Ends the process, and waits until it has. Its files are removed with it. */
type End = () => Promise<void>;

const MAIN = join(import.meta.dirname, '../../../src/cli/main.ts');

/** The server of the product, in a process of its own as everywhere. */
async function startServer(
  backend: IdentityBackend,
): Promise<{ paths: DataPaths; end: End } & Port> {
  const directory = await mkdtemp(join(tmpdir(), 'attack-'));
  const paths = dataPaths(directory);
  const removeAll = () => rm(directory, { recursive: true, force: true });
  const port = await freePort();
  try {
    const places = { address: '127.0.0.1', nodeName: 'server', apiPort: port };
    const config = await prepareData(paths, 'server', {
      ...{ ...places, tenantNodes: 'sanitised' },
      ...(await backend.prepare(directory)),
    });
    await prepareIdentities(paths, config);
  } catch (error) {
    await removeAll();
    throw error;
  }
  const args = ['--data-dir', directory, 'run', 'server'];
  const child = fork(MAIN, args, { stdio: ['ignore', 'inherit', 'ignore', 'ipc'] });
  const exited = once(child, 'exit');
  const end = async () => {
    child.kill('SIGKILL');
    await exited;
    await removeAll();
  };
  const [news] = (await Promise.race([once(child, 'message'), exited.then(() => [])])) as unknown[];
  if (!news) {
    await end();
    throw new Error('The attacked server ended before it was ready');
  }
  return { paths, port, end };
}

export async function startWorld(backend: IdentityBackend): Promise<World> {
  const { paths, port, end } = await startServer(backend);
  try {
    const environment = { clock: systemClock, random: systemRandom };
    const pki = await ensurePki(paths.pki, {
      hosts: serverHosts(await configOf(paths)),
      ...environment,
    });
    const client = createAttackClient(port, pki.caCert);
    const identity = await backend.harness({ paths, port, client, ca: pki.caCert });
    const base = { backend: backend.name, port, pki, client, identity };
    return await settle(base, async () => {
      client.close();
      await identity.provider.close();
      await end();
    });
  } catch (error) {
    await end();
    throw error;
  }
}

async function configOf(paths: DataPaths): Promise<MachineConfig> {
  const config = await readConfig(paths);
  if (!config) throw new Error(`No cluster at ${paths.root}`);
  return config;
}

interface Port {
  port: number;
}

type Base = Pick<World, 'backend' | 'port' | 'pki' | 'client' | 'identity'>;

async function settle(base: Base, dispose: () => Promise<void>): Promise<World> {
  const { pki, client, identity } = base;
  const certificate = signerOf(pki);
  const credentials = {
    operator: { pair: { cert: pki.adminCert, key: pki.adminKey } },
    node1: { pair: certificate('system:node:node-1', ['system:nodes']) },
    node2: { pair: certificate('system:node:node-2', ['system:nodes']) },
    nobody: {},
  } as World['credentials'];
  const credentialOf = (who: Who) => (typeof who === 'string' ? credentials[who] : who);
  const send: World['send'] = (who, request) => client.send(credentialOf(who), request);
  const want: World['want'] = async <T>(who: Who, request: Request) => {
    const answer = await send(who, request);
    if (answer.status >= 200 && answer.status < 300) return JSON.parse(answer.text) as T;
    const { method = 'GET', path } = request;
    throw new Error(`${method} ${path}: ${answer.status} ${answer.text.slice(0, 500)}`);
  };
  const projects: Record<string, string> = {};
  const world: World = {
    ...{ ...base, credentials, certificate, send, want },
    ...{ canaries: [], uids: {}, firstRevision: '', people: {} as World['people'] },
    async newPerson(tenant, role) {
      const name = `${role}-${randomBytes(4).toString('hex')}`;
      const project = projects[tenant] ?? '';
      const { id } = await identity.createUser(name, PASSWORD, identity.domain.id);
      await identity.assign({ kind: 'user', id, role, on: { kind: 'project', id: project } });
      const { name: domain } = identity.domain;
      const login: Login = { method: 'password', username: name, password: PASSWORD, domain };
      const token = await identity.issueToken(login, { projectId: project });
      return { id, login, project, token };
    },
    async newTenant(name, parent) {
      projects[name] = await createTenant(world, name, parent);
      const person = await world.newPerson(name, 'admin');
      await untilLetIn(world, person);
      return person;
    },
    async accountToken(namespace, name, spec = {}) {
      const path = `/api/v1/namespaces/${namespace}/serviceaccounts/${name}/token`;
      const made = await want<{ status: { token: string } }>('operator', {
        ...{ method: 'POST', path, body: { spec } },
      });
      return made.status.token;
    },
    async fingerprint() {
      const lists = await Promise.all(
        VICTIM_NAMESPACES.flatMap((namespace) =>
          WATCHED.map((kind) => fingerprintOf(world, kind, namespace)),
        ),
      );
      return lists.flat().join('\n');
    },
    [Symbol.asyncDispose]: dispose,
  };
  await enrol(world, projects);
  await buildVictim(world);
  return world;
}

/** Kinds that attempts try to change, as paths below a namespace. */
const WATCHED = [
  ...['configmaps', 'secrets', 'services', 'serviceaccounts', 'pods', 'endpoints'],
  ...['persistentvolumeclaims', 'resourcequotas', 'limitranges'],
].map((resource) => ({ prefix: '/api/v1', resource }));
const GROUPED = { prefix: '/apis/rbac.authorization.k8s.io/v1', resource: 'rolebindings' };
WATCHED.push(GROUPED, { prefix: '/apis/apps/v1', resource: 'deployments' });

async function fingerprintOf(
  { want }: World,
  { prefix, resource }: (typeof WATCHED)[number],
  namespace: string,
): Promise<string[]> {
  const path = `${prefix}/namespaces/${namespace}/${resource}`;
  const { items } = await want<{ items: KubeObject[] }>('operator', { path });
  return items.map(({ metadata, status: _, ...rest }) => {
    const { name, uid, labels, annotations, deletionTimestamp, ownerReferences } = metadata;
    const kept = { name, uid, labels, annotations, deletionTimestamp, ownerReferences };
    return `${resource} ${JSON.stringify({ ...kept, ...rest })}`;
  });
}

function signerOf(pki: Pki): World['certificate'] {
  const environment = { clock: systemClock, random: systemRandom };
  const signer = createCaSigner({ caCert: pki.caCert, caKey: pki.caKey, ...environment });
  return (name, groups) => {
    const key = createKey();
    const cert = signer.sign({
      subject: subjectOf(name, groups),
      publicKey: publicKeyOf(createPrivateKey(key)),
      usages: ['digital signature'],
      extendedUsages: ['client auth'],
    });
    return { cert, key };
  };
}

/** Both tenants with their people. Each has a project of the identity service. */
async function enrol(world: World, projects: Record<string, string>): Promise<void> {
  const { credentials, want } = world;
  const before = await want<{ metadata: { resourceVersion: string } }>('operator', {
    path: '/api/v1/configmaps?limit=1',
  });
  world.firstRevision = before.metadata.resourceVersion;
  for (const tenant of [VICTIM, ATTACKER]) projects[tenant] = await createTenant(world, tenant);
  for (const [name, tenant, role] of [
    ['alice', VICTIM, 'admin'],
    ['bob', ATTACKER, 'admin'],
    ['reader', ATTACKER, 'reader'],
  ] as const) {
    const { token, ...person } = await world.newPerson(tenant, role);
    world.people[name] = person;
    credentials[name] = { token };
  }
  world.canaries.push(projects[VICTIM] ?? '', world.people.alice.id);
  for (const who of ['alice', 'bob'] as const) await untilLetIn(world, who);
}

async function createTenant(world: World, name: string, parent?: string): Promise<string> {
  const { identity, want } = world;
  const nonce = randomBytes(3).toString('hex');
  const wanted = { name: `${name}-${nonce}`, domainId: identity.domain.id, enabled: true };
  const { id: project } = await identity.provider.createProject(wanted);
  const path = '/apis/hypernetes.io/v1/tenants';
  const quota = { hard: { pods: '1000' } };
  const spec = {
    projectID: project,
    ...(parent ? { parent, quota: { hard: { pods: '10' } } } : { quota }),
  };
  await want('operator', { method: 'POST', path, body: { metadata: { name }, spec } });
  const status = { status: { phase: 'Active', projectID: project } };
  await want('operator', { method: 'PATCH', path: `${path}/${name}/status`, body: status });
  return project;
}

/** The server learns of a tenant's project a moment after it was written. */
async function untilLetIn({ send }: World, who: Who): Promise<void> {
  for (let tries = 0; (await send(who, { path: '/api' })).status !== 200; tries += 1) {
    if (tries > 100) throw new Error('Somebody of a new tenant is not let in');
    await systemClock.sleep(50);
  }
}
