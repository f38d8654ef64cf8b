import { systemClock } from '../src/base/clock.ts';
import { silentLog } from '../src/base/log.ts';
import { systemRandom } from '../src/base/random.ts';
import { createEmbeddedProvider } from '../src/identity/embedded/provider.ts';
import { openEmbeddedIdentity } from '../src/identity/embedded/service.ts';
import type { EmbeddedIdentity } from '../src/identity/embedded/service.ts';
import { createMemoryStore } from '../src/store/memory.ts';
import { describeMachine, series } from './report.ts';
import type { BenchReport } from './report.ts';

const PROJECT_COUNT = 1_000;
const GROUP_COUNT = 20;
const PROJECT_DEPTH = 4;
const LOGIN_COUNT = 20;
const VALIDATION_COUNT = 20_000;
const WARM_UP_COUNT = 2_000;
const PASSWORD = 'a password of some length';

/** Somebody in many groups, with a role that comes from a group and from far above. */
async function populate(identity: EmbeddedIdentity): Promise<string> {
  const { accounts, directory, grants, state } = identity;
  const common = { domainId: 'default', description: '', enabled: true, tags: [] };
  for (let i = 0; i < PROJECT_COUNT; i += 1) {
    await directory.createProject({ name: `project-${i}`, ...common });
  }
  const line: string[] = [];
  for (let level = 0; level < PROJECT_DEPTH; level += 1) {
    const parent = line.length === 0 ? {} : { parentId: line.at(-1) };
    line.push((await directory.createProject({ name: `level-${level}`, ...parent, ...common })).id);
  }
  const named = { name: 'user', domainId: 'default', enabled: true, options: {} };
  const user = await accounts.createUser({ ...named, password: PASSWORD });
  const [role] = state.tables.roles.all();
  for (let i = 0; i < GROUP_COUNT; i += 1) {
    const group = await directory.createGroup({ ...common, name: `group-${i}` });
    await accounts.addMember(group.id, user.id);
    await grants.grant({
      ...{ roleId: role?.id ?? '', actorKind: 'group', actorId: group.id, inherited: true },
      ...{ targetKind: 'project', targetId: line[0] ?? '' },
    });
  }
  return line.at(-1) ?? '';
}

/** The embedded identity service alone, without HTTP and disk: logins and validations. */
export async function benchIdentity(): Promise<BenchReport> {
  const store = createMemoryStore();
  const parts = { store, clock: systemClock, random: systemRandom, log: silentLog };
  const identity = await openEmbeddedIdentity(parts);
  const url = 'https://127.0.0.1:6443';
  await identity.bootstrap({ identity: `${url}/identity/v3`, kubernetes: url });
  const projectId = await populate(identity);
  const provider = createEmbeddedProvider(identity);

  const logins: number[] = [];
  let token = '';
  for (let i = 0; i < LOGIN_COUNT; i += 1) {
    const startMs = systemClock.monotonicMs();
    const user = { name: 'user', domain: { id: 'default' } };
    const made = await identity.authenticate({
      identity: { method: 'password', user, password: PASSWORD },
      scope: { kind: 'project', project: { id: projectId } },
    });
    logins.push(systemClock.monotonicMs() - startMs);
    token = made.token;
  }
  const validations: number[] = [];
  for (let i = 0; i < WARM_UP_COUNT + VALIDATION_COUNT; i += 1) {
    const startMs = systemClock.monotonicMs();
    await provider.validate(token);
    const tookMs = systemClock.monotonicMs() - startMs;
    if (i >= WARM_UP_COUNT) validations.push(tookMs * 1000);
  }
  await identity.close();
  await store.close();
  return {
    name: 'identity',
    machine: describeMachine('not used'),
    series: [
      series('login with a password', logins),
      series('validation of a token', validations, 'µs'),
    ],
    notes: [
      `The user is in ${GROUP_COUNT} groups; the project is ${PROJECT_DEPTH} levels down, and \
${PROJECT_COUNT} others exist.`,
      `The token has ${token.length} characters.`,
    ],
  };
}
