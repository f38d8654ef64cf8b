import { once } from 'node:events';
import { copyFile, mkdir, mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { existsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { systemClock } from '../../../src/base/clock.ts';
import { run, start } from '../../../src/base/exec.ts';
import { systemRandom } from '../../../src/base/random.ts';
import { installPackages, packageVersion } from './packages.ts';
import { freePort } from './ports.ts';

/** Debian's Keystone, the reference implementation of the identity API, over SQLite. */
export interface TestKeystone {
  /** `http://127.0.0.1:port/v3` */
  url: string;
  /** Role admin on the project `admin` and on the system. */
  admin: KeystoneLogin;
  /** What a control plane logs in as: role admin on the project `service`. */
  service: KeystoneLogin;
  /** Nothing answers, and connections stay open, until `resume`. */
  pause(): void;
  resume(): void;
  /** Ends it as a power cut would. Its data stays. */
  kill(): Promise<void>;
  /** Starts it again on its port, ended or not, and waits until it answers. */
  restart(options?: TestKeystoneOptions): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

export interface KeystoneLogin {
  username: string;
  password: string;
  /** Name of the domain of user and project. */
  domain: string;
  project: string;
}

export interface TestKeystoneOptions {
  /** How long the tokens live that it makes from now on. @default 3600 */
  tokenSeconds?: number;
}

const PACKAGES = ['keystone', 'uwsgi-core', 'uwsgi-plugin-python3'];
const CACHE = join(import.meta.dirname, '../../../.cache/keystone');
const PASSWORD = 'not secret';
const DOMAIN = 'Default';
const START_TIMEOUT_MS = 60_000;
const MIGRATION_TIMEOUT_MS = 120_000;
const KEY_BYTES = 32;
/** A distribution's programs run with its own Python, whatever the caller has active. */
const ENVIRONMENT = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C.UTF-8' };

export async function startKeystone(options: TestKeystoneOptions = {}): Promise<TestKeystone> {
  await installPackages(PACKAGES);
  const directory = await mkdtemp(join(tmpdir(), 'keystone-'));
  const port = await freePort();
  const url = `http://127.0.0.1:${port}/v3`;
  const removeAll = () => rm(directory, { recursive: true, force: true });
  try {
    await configure(directory, port, options);
    await layOut(directory, port);
    let server = await serve(directory, port);
    const keystone: TestKeystone = {
      url,
      admin: { username: 'admin', password: PASSWORD, domain: DOMAIN, project: 'admin' },
      service: { username: 'hypernetes', password: PASSWORD, domain: DOMAIN, project: 'service' },
      pause: () => server.signal('SIGSTOP'),
      resume: () => server.signal('SIGCONT'),
      kill: () => server.end(),
      async restart(changed = options) {
        await server.end();
        await configure(directory, port, changed);
        server = await serve(directory, port);
      },
      async [Symbol.asyncDispose]() {
        await server.end();
        await removeAll();
      },
    };
    return keystone;
  } catch (error) {
    await removeAll();
    throw error;
  }
}

async function configure(directory: string, port: number, options: TestKeystoneOptions) {
  const text = configuration(directory, port, options.tokenSeconds ?? 3600);
  await writeFile(join(directory, 'keystone.conf'), text);
}

/** Keys and a database with the first users, as they are before the first start. */
async function layOut(directory: string, port: number): Promise<void> {
  for (const repository of ['fernet-keys', 'credential-keys']) {
    const path = join(directory, repository);
    await mkdir(path, { mode: 0o700 });
    // 0 is the staged key, 1 the primary one.
    for (const name of ['0', '1']) {
      const key = Buffer.from(systemRandom.bytes(KEY_BYTES)).toString('base64url');
      await writeFile(join(path, name), `${key}=`, { mode: 0o600 });
    }
  }
  const cached = join(CACHE, `${await packageVersion('keystone')}.db`);
  const database = join(directory, 'keystone.db');
  if (!existsSync(cached)) await fillCache(directory, database, cached);
  await copyFile(cached, database);
  const connection = new DatabaseSync(database);
  connection.prepare('UPDATE endpoint SET url = ?').run(`http://127.0.0.1:${port}/v3`);
  connection.close();
}

/** Migrating and filling a database takes Keystone many seconds, and always gives the same. */
async function fillCache(directory: string, database: string, cached: string): Promise<void> {
  const manage = (args: string[]) =>
    run('keystone-manage', ['--config-file', join(directory, 'keystone.conf'), ...args], {
      env: ENVIRONMENT,
      timeoutMs: MIGRATION_TIMEOUT_MS,
    });
  const service = ['--bootstrap-username', 'hypernetes', '--bootstrap-project-name', 'service'];
  const password = ['--bootstrap-password', PASSWORD];
  const endpoints = ['admin', 'internal', 'public'].flatMap((name) => [
    `--bootstrap-${name}-url`,
    'http://127.0.0.1/v3',
  ]);
  await manage(['db_sync']);
  const region = ['--bootstrap-region-id', 'RegionOne', ...endpoints];
  await manage(['bootstrap', ...password, ...region]);
  await manage(['bootstrap', ...password, ...service]);
  await mkdir(CACHE, { recursive: true });
  const temporary = `${cached}.${process.pid}`;
  await copyFile(database, temporary);
  await rename(temporary, cached);
}

/**
 * One process: the cache lives in it, and with several a revocation would reach the others late.
 * Without a cache a validation costs hundreds of SQL statements.
 */
function configuration(directory: string, port: number, tokenSeconds: number): string {
  const sections: Record<string, Record<string, string | number | boolean>> = {
    DEFAULT: {
      use_stderr: true,
      log_dir: '',
      public_endpoint: `http://127.0.0.1:${port}/`,
      default_log_levels: 'keystone=ERROR,oslo_policy=ERROR,sqlalchemy=WARN',
    },
    database: {
      connection: `sqlite:///${join(directory, 'keystone.db')}`,
      sqlite_synchronous: false,
    },
    fernet_tokens: { key_repository: join(directory, 'fernet-keys') },
    fernet_receipts: { key_repository: join(directory, 'fernet-keys') },
    credential: { key_repository: join(directory, 'credential-keys') },
    token: { provider: 'fernet', expiration: tokenSeconds },
    // The least that bcrypt can cost: these are nobody's passwords.
    identity: { password_hash_rounds: 4, max_password_length: 72 },
    cache: { enabled: true, backend: 'oslo_cache.dict', expiration_time: 600 },
    oslo_policy: { enforce_scope: false },
    oslo_messaging_notifications: { driver: 'noop' },
  };
  return Object.entries(sections)
    .map(([name, values]) => [
      `[${name}]`,
      ...Object.entries(values).map(([key, value]) => `${key} = ${value}`),
      '',
    ])
    .flat()
    .join('\n');
}

interface Server {
  signal(name: NodeJS.Signals): void;
  end(): Promise<void>;
}

async function serve(directory: string, port: number): Promise<Server> {
  const options = {
    env: { ...ENVIRONMENT, OS_KEYSTONE_CONFIG_DIR: directory },
    stdio: ['ignore', 'pipe', 'pipe'] as ['ignore', 'pipe', 'pipe'],
    // A group of its own, so that its workers are stopped and ended with it.
    detached: true,
  };
  const uwsgi = ['uwsgi_python3', '--plugins', 'python3', '--http-socket', `127.0.0.1:${port}`];
  // One request at a time: two that write would find SQLite's database locked.
  const shape = ['--master', '--processes', '1', '--threads', '1', '--enable-threads'];
  const rest = ['--need-app', '--no-orphans', '--disable-logging', '--buffer-size', '65535'];
  const application = ['--chdir', directory, '--wsgi-file', '/usr/bin/keystone-wsgi-public'];
  const close = ['--add-header', 'Connection: close'];
  // It dies with the test that started it, however that ends.
  const leash = ['--pdeathsig', 'KILL', '--'];
  const args = [...leash, ...uwsgi, ...shape, ...rest, ...application, ...close];
  const child = start('setpriv', args, options);
  let said = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream?.on('data', (chunk: Buffer) => (said = (said + chunk.toString()).slice(-8000)));
  }
  const exited = once(child, 'exit');
  const signal = (name: NodeJS.Signals) => {
    if (child.pid !== undefined && child.exitCode === null && child.signalCode === null) {
      process.kill(-child.pid, name);
    }
  };
  const end = async () => {
    signal('SIGKILL');
    await exited;
  };
  try {
    await untilAnswers(`http://127.0.0.1:${port}/v3`, () => {
      if (child.exitCode !== null) throw new Error(`Keystone ended:\n${said}`);
    });
  } catch (error) {
    await end();
    throw new Error(`Cannot start Keystone:\n${said}`, { cause: error });
  }
  return { signal, end };
}

/** Until it can log somebody in, which takes its first answer seconds. */
async function untilAnswers(url: string, check: () => void): Promise<void> {
  const user = { name: 'admin', domain: { name: DOMAIN }, password: PASSWORD };
  const body = JSON.stringify({
    auth: { identity: { methods: ['password'], password: { user } }, scope: 'unscoped' },
  });
  const headers = { 'content-type': 'application/json' };
  const deadlineMs = systemClock.monotonicMs() + START_TIMEOUT_MS;
  for (;;) {
    check();
    const answered = await fetch(`${url}/auth/tokens`, { method: 'POST', headers, body }).then(
      (answer) => answer.ok,
      () => false,
    );
    if (answered) return;
    if (systemClock.monotonicMs() > deadlineMs) throw new Error(`Cannot reach ${url} in time`);
    await systemClock.sleep(50);
  }
}
