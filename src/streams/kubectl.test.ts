import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readdirSync, readFileSync, realpathSync } from 'node:fs';
import { rmSync, writeFileSync } from 'node:fs';
import { createConnection, createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { once } from 'node:events';
import { execute, start } from '../base/exec.ts';
import { seededRandom } from '../base/random.ts';
import { startPodStub } from './testing/pod.stub.ts';
import type { PodStub } from './testing/pod.stub.ts';

/**
 * Goal: real clients are served losslessly. Method: every protocol that the oldest and the
 * newest kubectl of this machine can be made to speak, against programs of this machine. On a
 * machine without kubectl the same paths are covered by the tests beside this one.
 */
function findKubectls(): string[] {
  const onPath = (process.env['PATH'] ?? '')
    .split(delimiter)
    .map((folder) => join(folder, 'kubectl'))
    .find((path) => existsSync(path));
  if (!onPath) return [];
  const folder = dirname(realpathSync(onPath));
  const versioned = readdirSync(folder).filter((name) => /^kubectl\.1\.[0-9]+$/.test(name));
  versioned.sort((a, b) => Number(a.split('.')[2]) - Number(b.split('.')[2]));
  if (versioned.length === 0) return [onPath];
  return [versioned[0] as string, versioned.at(-1) as string].map((name) => join(folder, name));
}

const kubectls = findKubectls();
const folder = mkdtempSync(join(tmpdir(), 'streams-kubectl-'));
let stub: PodStub;

before(async () => {
  stub = await startPodStub();
});
after(async () => {
  await stub.close();
  rmSync(folder, { recursive: true });
});

function environment(webSockets: boolean): NodeJS.ProcessEnv {
  return {
    ...process.env,
    HOME: folder,
    KUBECONFIG: '/dev/null',
    KUBECTL_REMOTE_COMMAND_WEBSOCKETS: String(webSockets),
    KUBECTL_PORT_FORWARD_WEBSOCKETS: String(webSockets),
  };
}

for (const kubectl of kubectls) {
  for (const webSockets of [true, false]) {
    describe(`${kubectl} with WebSockets ${webSockets ? 'on' : 'off'}`, () => {
      const env = environment(webSockets);
      const run = (args: string[], input?: string | Uint8Array) =>
        execute(kubectl, [`--server=${stub.url}`, ...args], {
          env,
          timeoutMs: 20_000,
          ...(input === undefined ? {} : { input }),
        });

      test('exec() keeps outputs apart and returns the exit code', async () => {
        const result = await run(['exec', 'stub', '--', 'sh', '-c', 'echo o; echo e >&2; exit 3']);
        assert.equal(result.stdout, 'o\n');
        assert.match(result.stderr, /^e\ncommand terminated with exit code 3/);
        assert.equal(result.exitCode, 3);
      });

      test('exec() carries input both ways and half-closes it', async () => {
        const text = 'line\n'.repeat(200_000);
        const result = await run(['exec', '-i', 'stub', '--', 'cat'], text);
        assert.equal(result.exitCode, 0, result.stderr);
        assert.ok(result.stdout === text, 'output differs from input');
      });

      test('cp() copies a file in and out unharmed', async () => {
        const source = join(folder, 'source');
        writeFileSync(source, seededRandom(1).bytes(300_000));
        const remote = join(folder, 'remote');
        const result = join(folder, 'result');
        const copyIn = await run(['cp', source, `default/stub:${remote}`]);
        assert.equal(copyIn.exitCode, 0, copyIn.stderr);
        const copyOut = await run(['cp', `default/stub:${remote}`, result]);
        assert.equal(copyOut.exitCode, 0, copyOut.stderr);
        assert.deepEqual(readFileSync(result), readFileSync(source));
        for (const path of [remote, result]) rmSync(path);
      });

      test('port-forward() carries several connections over one session', async () => {
        await testPortForward(kubectl, env);
      });
    });
  }
}

async function testPortForward(kubectl: string, env: NodeJS.ProcessEnv): Promise<void> {
  const echo = createServer({ allowHalfOpen: true }, (socket) => void socket.pipe(socket));
  echo.listen(0, '127.0.0.1');
  await once(echo, 'listening');
  const { port } = echo.address() as AddressInfo;
  const args = [`--server=${stub.url}`, 'port-forward', 'stub', `:${port}`, '--address=127.0.0.1'];
  const child = start(kubectl, args, { env, stdio: ['ignore', 'pipe', 'pipe'] });
  try {
    const [line] = (await once(child.stdout as NodeJS.ReadableStream, 'data')) as [Buffer];
    const local = Number(/127\.0\.0\.1:([0-9]+)/.exec(line.toString())?.[1]);
    assert.ok(local > 0, line.toString());
    const sent = [1, 2, 3].map((seed) => Buffer.from(seededRandom(seed).bytes(150_000)));
    const received = await Promise.all(sent.map((bytes) => roundTrip(local, bytes)));
    assert.deepEqual(received, sent);
  } finally {
    child.kill('SIGKILL');
    await once(child, 'close');
    await new Promise((resolve) => echo.close(resolve));
  }
}

async function roundTrip(port: number, bytes: Buffer): Promise<Buffer> {
  const socket = createConnection({ host: '127.0.0.1', port });
  const parts: Buffer[] = [];
  socket.on('data', (part: Buffer) => parts.push(part));
  socket.end(bytes);
  await once(socket, 'close');
  return Buffer.concat(parts);
}
