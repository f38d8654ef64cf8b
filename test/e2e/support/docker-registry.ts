import { once } from 'node:events';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createCa, createCaSigner, createKey } from '../../../src/auth/pki.ts';
import { systemClock } from '../../../src/base/clock.ts';
import { start } from '../../../src/base/exec.ts';
import { systemRandom } from '../../../src/base/random.ts';
import { freePort } from './ports.ts';
import { packagedProgram } from './debian.ts';

/** Debian's docker-registry, the reference implementation of the distribution API. */
export interface DockerRegistry {
  /** `127.0.0.1:port` */
  host: string;
  /** With TLS: who may push and pull, and the CA to trust. */
  credential: { username: string; password: string } | undefined;
  caFile: string | undefined;
  caCert: string | undefined;
  [Symbol.asyncDispose](): Promise<void>;
}

/** bcrypt, the one hash that it accepts, of the password below. */
const HTPASSWD = 'test:$2y$05$S2aURDFTZsAq1Rmx7HfZ0e8hWSDjaZ9bvHhawcSdPqHXgav53i7HO\n';
const PASSWORD = 'not secret';
const START_TIMEOUT_MS = 60_000;

/** @param options.secure TLS with a CA of its own and a password, instead of plain HTTP */
export async function startDockerRegistry(options: { secure: boolean }): Promise<DockerRegistry> {
  const { path, env } = await packagedProgram('docker-registry');
  const directory = await mkdtemp(join(tmpdir(), 'docker-registry-'));
  const port = await freePort();
  const host = `127.0.0.1:${port}`;
  const storage = join(directory, 'storage');
  await mkdir(storage);
  const http: Record<string, unknown> = { addr: host, secret: 'x' };
  const config: Record<string, unknown> = {
    version: 0.1,
    log: { level: 'error', accesslog: { disabled: true } },
    storage: { filesystem: { rootdirectory: storage }, delete: { enabled: true } },
    http,
  };
  const ca = options.secure ? await writeCertificates(directory) : undefined;
  if (ca) {
    http['tls'] = { certificate: join(directory, 'cert.pem'), key: join(directory, 'key.pem') };
    await writeFile(join(directory, 'htpasswd'), HTPASSWD);
    config['auth'] = { htpasswd: { realm: 'test', path: join(directory, 'htpasswd') } };
  }
  const file = join(directory, 'config.yml');
  // JSON is YAML.
  await writeFile(file, JSON.stringify(config));
  const child = start(path, ['serve', file], { env, stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  child.stderr?.on('data', (chunk: Buffer) => (said = (said + chunk.toString()).slice(-4000)));
  const exited = once(child, 'exit');
  await waitForPort(host, () => {
    if (child.exitCode !== null) throw new Error(`docker-registry ended: ${said}`);
  });
  return {
    host,
    credential: ca ? { username: 'test', password: PASSWORD } : undefined,
    caFile: ca ? join(directory, 'ca', 'ca.crt') : undefined,
    caCert: ca,
    async [Symbol.asyncDispose]() {
      child.kill('SIGKILL');
      await exited;
      await rm(directory, { recursive: true, force: true });
    },
  };
}

async function writeCertificates(directory: string): Promise<string> {
  const options = { clock: systemClock, random: systemRandom };
  const caKey = createKey();
  const caCert = createCa(caKey, options);
  const pair = createCaSigner({ caCert, caKey, ...options }).serverPair('registry', ['127.0.0.1']);
  await mkdir(join(directory, 'ca'));
  await writeFile(join(directory, 'ca', 'ca.crt'), caCert);
  await writeFile(join(directory, 'cert.pem'), pair.cert);
  await writeFile(join(directory, 'key.pem'), pair.key);
  return caCert;
}

async function waitForPort(host: string, check: () => void): Promise<void> {
  const deadlineMs = systemClock.monotonicMs() + START_TIMEOUT_MS;
  for (;;) {
    check();
    // Any answer will do, also that HTTP is not spoken here.
    const answered = await fetch(`http://${host}/`).then(
      () => true,
      () => false,
    );
    if (answered) return;
    if (systemClock.monotonicMs() > deadlineMs) throw new Error(`Cannot reach ${host}`);
    await systemClock.sleep(20);
  }
}
