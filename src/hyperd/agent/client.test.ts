import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFile, readdir, readlink } from 'node:fs/promises';
import { createServer as createHttpServer } from 'node:http';
import { createServer } from 'node:net';
import type { AddressInfo, Server } from 'node:net';
import { join } from 'node:path';
import { before, describe, test } from 'node:test';
import type { ProbeRequest } from '../../api/hyperd.ts';
import type { Agent, PodSetup } from './agent.ts';
import { AgentError } from './agent.ts';
import { TEST_SETUP, buildTestGuest, containerSpec, makeTestHost } from './testing/guest.ts';
import { processSpec, startTestGuest, textOf } from './testing/guest.ts';
import type { TestGuest, TestHost } from './testing/guest.ts';

// Goal: what agent.ts promises holds between the client and the real hyperstart. Method: the
// guest's own code as a process on a line like QEMU's (fixture.ts), without VM and namespaces.

let program = '';
before(async () => {
  program = await buildTestGuest();
});

interface Pair {
  guest: TestGuest;
  host: TestHost;
  agent: Agent;
}

async function withPod(check: (pair: Pair) => Promise<void>, host = makeTestHost()) {
  await using guest = await startTestGuest(program);
  const agent = await host.connect(guest.line);
  try {
    await agent.setupPod(TEST_SETUP);
    await check({ guest, host, agent });
  } finally {
    agent.close();
  }
}

const shell = (id: string, script: string) => containerSpec(id, ['sh', '-c', script]);
const isRefusal =
  (reason: string, message: RegExp, exitCode = 0) =>
  (error: unknown) => {
    assert.ok(error instanceof AgentError, String(error));
    assert.equal(error.reason, reason);
    assert.match(error.message, message);
    assert.equal(error.exitCode, exitCode);
    return true;
  };

describe('containers', () => {
  test('print, exit with their code and leave a message', () =>
    withPod(async ({ guest, host, agent }) => {
      const log = join(guest.directory, 'scratch/containers/0/termination-log');
      await agent.startContainer(shell('a', `echo out; echo err >&2; echo bye > ${log}; exit 3`));
      const exit = await host.exit('a');
      assert.equal(host.text('a'), 'out\n');
      assert.equal(host.text('a', 2), 'err\n');
      const { exitCode, signal, reason, message, oomKilled } = exit;
      const expected = [3, 0, 'Error', 'bye\n', false];
      assert.deepEqual([exitCode, signal, reason, message, oomKilled], expected);
      assert.ok(Math.abs(exit.finishedAtMs - Date.now()) < 60_000);
    }));

  test('that are killed tell the signal', () =>
    withPod(async ({ host, agent }) => {
      await agent.startContainer(containerSpec('a', ['sleep', '1000']));
      await agent.signalContainer('a', 15);
      const exit = await host.exit('a');
      assert.deepEqual([exit.exitCode, exit.signal, exit.reason], [143, 15, 'Error']);
      await assert.rejects(agent.signalContainer('a', 15), isRefusal('NotFound', /has ended/));
    }));

  test('start once, however often they are asked to', () =>
    withPod(async ({ host, agent }) => {
      const spec = shell('a', 'echo once');
      await Promise.all([agent.startContainer(spec), agent.startContainer(spec)]);
      await agent.startContainer(spec);
      await host.exit('a');
      await agent.startContainer(spec);
      assert.equal(host.text('a'), 'once\n');
    }));

  test('get other limits while they run', () =>
    withPod(async ({ agent }) => {
      await agent.startContainer(containerSpec('a', ['sleep', '1000']));
      const resources = { cpuMillis: 500, cpuWeightMillis: 100, memoryBytes: 64 << 20 };
      await agent.setResources('a', resources);
      await agent.setResources('a', resources);
      await assert.rejects(agent.setResources('b', resources), isRefusal('NotFound', /"b"/));
      const negative = agent.setResources('a', { ...resources, memoryBytes: -1 });
      await assert.rejects(negative, isRefusal('Invalid', /less than 0/));
    }));

  test('that are removed while they run are killed', () =>
    withPod(async ({ agent }) => {
      await agent.startContainer(containerSpec('a', ['sleep', '1000']));
      await agent.removeContainer('a');
      await agent.removeContainer('a');
      assert.deepEqual((await agent.stats()).containers, []);
      await assert.rejects(agent.exec('a', processSpec(['true'])), isRefusal('NotFound', /"a"/));
    }));

  test('read standard input until it is closed', () =>
    withPod(async ({ host, agent }) => {
      await agent.startContainer(containerSpec('a', ['cat'], { stdin: true }));
      agent.containerStdin('a').end('hello');
      assert.equal((await host.exit('a')).exitCode, 0);
      assert.equal(host.text('a'), 'hello');
    }));

  test('without standard input see its end', () =>
    withPod(async ({ host, agent }) => {
      await agent.startContainer(containerSpec('a', ['cat']));
      assert.equal((await host.exit('a')).exitCode, 0);
    }));

  const failures: [string, string[], number, RegExp][] = [
    ['not in PATH', ['nope'], 127, /^exec: "nope": executable file not found in \$PATH$/],
    ['absent', ['/no/such'], 127, /^exec: "\/no\/such": stat \/no\/such: no such file/],
    ['not executable', ['/etc/passwd'], 126, /^exec: "\/etc\/passwd": permission denied$/],
    ['a directory', ['/etc'], 126, /^exec: "\/etc": is a directory$/],
    ['empty', [], 128, /^no command specified$/],
  ];
  for (const [what, argv, code, message] of failures) {
    test(`whose program is ${what} say so and leave nothing behind`, () =>
      withPod(async ({ agent, host }) => {
        const started = agent.startContainer(containerSpec('a', argv));
        await assert.rejects(started, isRefusal('StartError', message, code));
        assert.equal(host.exits.size, 0);
        assert.deepEqual((await agent.stats()).containers, []);
      }));
  }

  test('wait for the host when nobody takes their output', async () => {
    const release = Promise.withResolvers<void>();
    let held = 0;
    const host = makeTestHost();
    const keep = host.options.onOutput;
    host.options.onOutput = async (output) => {
      held += output.bytes.length;
      await release.promise;
      await keep(output);
    };
    await withPod(async ({ agent }) => {
      const script = 'head -c 3000000 /dev/zero; echo done >&2';
      await agent.startContainer(shell('a', script));
      await agent.exec('a', processSpec(['true'])).then((process) => process.exited);
      assert.ok(held <= 256 * 1024, `${held} bytes were taken without acknowledgement`);
      assert.equal(host.exits.size, 0);
      release.resolve();
      assert.equal((await host.exit('a')).exitCode, 0);
      assert.equal(host.text('a').length, 3_000_000);
    }, host);
  });
});

describe('exec', () => {
  test('carries a lot of bytes both ways, unchanged', () =>
    withPod(async ({ agent }) => {
      await agent.startContainer(containerSpec('a', ['sleep', '1000']));
      const process = await agent.exec('a', processSpec(['cat']));
      // The magic of the protocol is among them: it must pass like any other bytes.
      const magic = Buffer.from('\xffhyperstart/open', 'latin1');
      const noise = Buffer.from(Array.from({ length: 700_001 }, (_, i) => (i * 7919) >> 3));
      const bytes = Buffer.concat([noise, magic, magic, noise, magic]);
      const seen = createHash('sha256');
      const read = (async () => {
        for await (const chunk of process.stdout) seen.update(chunk);
      })();
      process.stdin.end(bytes);
      await read;
      assert.equal((await process.exited).exitCode, 0);
      assert.equal(seen.digest('hex'), createHash('sha256').update(bytes).digest('hex'));
    }));

  test('tells output, errors and code apart', () =>
    withPod(async ({ agent }) => {
      await agent.startContainer(containerSpec('a', ['sleep', '1000']));
      const script = 'echo o; echo e >&2; exit 7';
      const process = await agent.exec('a', processSpec(['sh', '-c', script]));
      const [out, error] = await Promise.all([textOf(process.stdout), textOf(process.stderr)]);
      assert.deepEqual([out, error, (await process.exited).exitCode], ['o\n', 'e\n', 7]);
    }));

  test('ends although a child keeps its output open', () =>
    withPod(async ({ agent }) => {
      await agent.startContainer(containerSpec('a', ['sleep', '1000']));
      const process = await agent.exec('a', processSpec(['sh', '-c', 'sleep 4 & echo up']));
      assert.equal(await textOf(process.stdout), 'up\n');
      assert.equal((await process.exited).exitCode, 0);
    }));

  test('has a terminal of the size that was set', () =>
    withPod(async ({ agent }) => {
      await agent.startContainer(containerSpec('a', ['sleep', '1000']));
      const spec = processSpec(['sh', '-c', 'read line; tty; stty size'], { tty: true });
      const process = await agent.exec('a', spec);
      await process.resize({ width: 100, height: 40 });
      process.stdin.write('go\n');
      const text = await textOf(process.stdout);
      assert.match(text, /go\r\n\/dev\/pts\/\d+\r\n40 100\r\n$/);
      assert.equal(await textOf(process.stderr), '');
      assert.equal((await process.exited).exitCode, 0);
    }));

  test('that is let go is killed', () =>
    withPod(async ({ agent, guest }) => {
      await agent.startContainer(containerSpec('a', ['sleep', '1000']));
      const mark = join(guest.directory, 'mark');
      const script = `trap 'echo x > ${mark}' EXIT; echo $$; sleep 1000`;
      const process = await agent.exec('a', processSpec(['sh', '-c', script]));
      const pid = Number(String((await process.stdout[Symbol.asyncIterator]().next()).value));
      process.close();
      await agent.stats();
      await assert.rejects(async () => {
        for (;;) await readFile(`/proc/${pid}/comm`);
      }, /ENOENT|ESRCH/);
      await assert.rejects(readFile(mark), /ENOENT/);
    }));

  test('does not go on after a closed session, and its streams fail', () =>
    withPod(async ({ agent }) => {
      await agent.startContainer(containerSpec('a', ['sleep', '1000']));
      const process = await agent.exec('a', processSpec(['cat']));
      agent.close();
      await assert.rejects(process.exited, isRefusal('Closed', /closed/));
      await assert.rejects(textOf(process.stdout), isRefusal('Closed', /closed/));
      assert.equal(await agent.closed, undefined);
    }));

  test('of a program that is not there says so', () =>
    withPod(async ({ agent }) => {
      await agent.startContainer(containerSpec('a', ['sleep', '1000']));
      const refusal = isRefusal('StartError', /executable file not found in \$PATH/, 127);
      await assert.rejects(agent.exec('a', processSpec(['nope'])), refusal);
    }));
});

describe('volumes', () => {
  const file = (path: string, text: string, mode = 0o644) => ({
    path,
    mode,
    content: Buffer.from(text).toString('base64'),
  });

  test('and the pod are still there for the next host', () =>
    withPod(async ({ agent, guest }) => {
      await agent.startContainer(containerSpec('a', ['sleep', '1000']));
      agent.close();
      const host = makeTestHost();
      const again = await host.connect(guest.line);
      assert.equal(again.hello.podReady, true);
      again.close();
    }));

  test('of files change as a whole, and never back', async () => {
    await using guest = await startTestGuest(program);
    const agent = await makeTestHost().connect(guest.line);
    const big = 'x'.repeat(700_000);
    const files = [file('a', 'one'), file('d/b', big, 0o600), file('old', '')];
    const first = { version: 1, files };
    const volumes: PodSetup['volumes'] = [{ name: 'v', type: 'files', content: first }];
    await agent.setupPod({ ...TEST_SETUP, volumes });
    const directory = join(guest.directory, 'volume/v');
    assert.equal(await readFile(join(directory, 'd/b'), 'utf8'), big);
    await agent.writeVolume('v', { version: 3, files: [file('a', 'three'), file('d/c', 'c')] });
    await agent.writeVolume('v', { version: 2, files: [file('a', 'two')] });
    assert.equal(await readFile(join(directory, 'a'), 'utf8'), 'three');
    assert.equal(await readlink(join(directory, '..data')), '..v3');
    assert.deepEqual((await readdir(directory)).sort(), ['..data', '..v3', 'a', 'd']);
    for (const path of ['../x', 'a/../../x', '/etc/x', '..v9/x', 'a//b', '.', '']) {
      const bad = agent.writeVolume('v', { version: 4, files: [file(path, 'x')] });
      await assert.rejects(bad, isRefusal('Invalid', /cannot write/), path);
    }
    await assert.rejects(agent.writeVolume('w', first), isRefusal('NotFound', /"w"/));
    agent.close();
  });
});

async function listen(server: Server): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return (server.address() as AddressInfo).port;
}

describe('connections', () => {
  test('carry bytes and ends both ways', async () => {
    const server = createServer({ allowHalfOpen: true }, (socket) => {
      let size = 0;
      socket.on('data', (chunk) => (size += chunk.length));
      socket.on('end', () => socket.end(`${size}`));
    });
    const port = await listen(server);
    try {
      await withPod(async ({ agent }) => {
        const connection = await agent.connectPort(port);
        connection.end(Buffer.alloc(1_000_000, 1));
        assert.equal(await textOf(connection), '1000000');
      });
    } finally {
      server.close();
    }
  });

  test('to a closed port are refused', () =>
    withPod(async ({ agent }) => {
      const server = createServer();
      const port = await listen(server);
      await new Promise((resolve) => server.close(resolve));
      await assert.rejects(agent.connectPort(port), isRefusal('Refused', /connection refused/));
      const probe = { type: 'tcp', host: '127.0.0.1', port, timeoutMs: 1000 } as const;
      const message = `dial tcp 127.0.0.1:${port}: connect: connection refused`;
      assert.deepEqual(await agent.probe(probe), { success: false, message });
    }));

  test('of probes speak HTTP as the kubelet does', async () => {
    const server = createHttpServer((request, response) => {
      const status = Number(request.url?.slice(1)) || 200;
      if (request.url === '/silent') return;
      const location = request.url === '/302' ? '/204' : 'http://elsewhere.example/';
      response.writeHead(status, { ...(status >= 300 && status < 400 && { location }) });
      const { 'user-agent': agentName, 'x-a': own } = request.headers;
      response.end(status === 200 ? `${agentName} ${own}` : '');
    });
    const port = await listen(server);
    const probe = (path: string, timeoutMs = 2000): ProbeRequest => {
      const headers = [{ name: 'X-A', value: 'b' }];
      const host = '127.0.0.1';
      return { type: 'http', scheme: 'http', host, port, path, headers, timeoutMs };
    };
    try {
      await withPod(async ({ agent }) => {
        const ok = await agent.probe(probe('/ok'));
        assert.deepEqual(ok, { success: true, message: 'kube-probe/1.35 b' });
        assert.equal((await agent.probe(probe('/302'))).success, true);
        assert.equal((await agent.probe(probe('/301'))).success, true);
        const failed = { success: false, message: 'HTTP probe failed with statuscode: 503' };
        assert.deepEqual(await agent.probe(probe('/503')), failed);
        const late = await agent.probe(probe('/silent', 200));
        assert.match(late.message, /context deadline exceeded/);
      });
    } finally {
      server.closeAllConnections();
      server.close();
    }
  });
});

test('A shut down guest ends', () =>
  withPod(async ({ agent, guest, host }) => {
    await agent.startContainer(containerSpec('a', ['sleep', '1000']));
    await agent.shutdown();
    assert.equal((await guest.ended).code, 0);
    assert.equal(host.exits.size <= 1, true);
  }));
