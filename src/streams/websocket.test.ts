import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, test } from 'node:test';
import { WebSocket } from 'ws';
import { FakeClock } from '../base/clock.fake.ts';
import { acceptPortForward, acceptRemoteCommand, exitStatus } from './index.ts';
import type { RemoteCommandSession } from './index.ts';

/** Goal: each WebSocket form of the protocol, byte by byte, as its clients send and expect it. */
let close: () => Promise<void> = () => Promise.resolve();
afterEach(() => close());

const ALL = { stdin: true, stdout: true, stderr: true, tty: false };

async function serve(options = ALL): Promise<{
  url: string;
  clock: FakeClock;
  session: Promise<RemoteCommandSession>;
}> {
  const clock = new FakeClock();
  const server = createServer();
  const sockets = new Set<import('node:stream').Duplex>();
  const session = new Promise<RemoteCommandSession>((resolve) => {
    server.on('upgrade', (request, socket, head) => {
      sockets.add(socket);
      if (request.url?.startsWith('/forward')) {
        const ports = new URL(request.url, 'http://x').searchParams.getAll('ports').map(Number);
        void acceptPortForward(request, socket, head, ports, clock).then(async (forward) => {
          for await (const connection of forward?.connections ?? []) {
            if (connection.port === 1) connection.fail('no such port');
            else connection.data.pipe(connection.data);
          }
        });
        return;
      }
      void acceptRemoteCommand(request, socket, head, options, clock).then((accepted) => {
        if (accepted) resolve(accepted);
      });
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  close = async () => {
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  };
  return { url: `ws://127.0.0.1:${(server.address() as AddressInfo).port}`, clock, session };
}

function messages(socket: WebSocket): Buffer[] {
  const list: Buffer[] = [];
  socket.on('message', (data: Buffer) => list.push(data));
  return list;
}

for (const [protocol, error] of [
  ['v5.channel.k8s.io', /"exitCode"|ExitCode/],
  ['v4.channel.k8s.io', /ExitCode/],
  ['v2.channel.k8s.io', /^command terminated/],
  ['channel.k8s.io', /^command terminated/],
] as const) {
  test(`${protocol} carries input, outputs and the end`, async () => {
    const { url, session } = await serve();
    const socket = new WebSocket(url, protocol);
    const received = messages(socket);
    await once(socket, 'open');
    assert.equal(socket.protocol, protocol);
    const { stdin, stdout, stderr, finish } = await session;
    socket.send(Buffer.from('\0in'));
    const [input] = (await once(stdin, 'data')) as [Buffer];
    assert.equal(input.toString(), 'in');
    stdout.write('out');
    stderr.write('err');
    const closed = once(socket, 'close');
    await finish(exitStatus(9));
    assert.equal((await closed)[0], 1000);
    const [ready, ...rest] = received.map((each) => each.toString());
    assert.equal(ready, '\x01', 'an empty message says that the streams are up');
    assert.deepEqual(rest.slice(0, 2), ['\x01out', '\x02err']);
    assert.equal(received.at(-1)?.[0], 3);
    assert.match(received.at(-1)?.subarray(1).toString() ?? '', error);
  });
}

test('what comes while a message leaves is one message', async () => {
  const { url, session } = await serve();
  const socket = new WebSocket(url, 'v5.channel.k8s.io');
  const received = messages(socket);
  await once(socket, 'open');
  const { stdout, finish } = await session;
  for (const word of ['first', 'second', 'third']) stdout.write(word);
  await finish(exitStatus(0));
  await once(socket, 'close');
  const texts = received.filter(([channel]) => channel === 1).map((message) => message.toString());
  assert.deepEqual(texts, ['\x01', '\x01first', '\x01secondthird']);
});

test('base64.channel.k8s.io carries text', async () => {
  const { url, session } = await serve();
  const socket = new WebSocket(url, 'base64.channel.k8s.io');
  const received = messages(socket);
  await once(socket, 'open');
  const { stdin, stdout, finish } = await session;
  socket.send(`0${Buffer.from('in').toString('base64')}`);
  const [input] = (await once(stdin, 'data')) as [Buffer];
  assert.equal(input.toString(), 'in');
  stdout.write('out');
  const closed = once(socket, 'close');
  await finish(exitStatus(0));
  await closed;
  const texts = received.map((each) => each.toString());
  assert.deepEqual(texts, ['1', `1${Buffer.from('out').toString('base64')}`]);
});

test('v5 ends stdin by a close message, older ones do not know it', async () => {
  const { url, session } = await serve();
  const socket = new WebSocket(url, 'v5.channel.k8s.io');
  await once(socket, 'open');
  const { stdin } = await session;
  stdin.resume();
  const ended = once(stdin, 'end');
  socket.send(Buffer.from([255, 0]));
  await ended;
  socket.close();
});

test('only the newest of unread terminal sizes counts', async () => {
  const { url, session } = await serve({ ...ALL, tty: true });
  const socket = new WebSocket(url, 'v4.channel.k8s.io');
  await once(socket, 'open');
  const { resize, stdin } = await session;
  for (const width of [10, 20, 30]) {
    socket.send(Buffer.from(`\x04${JSON.stringify({ Width: width, Height: 5 })}`));
  }
  socket.send(Buffer.from('\x04not a size'));
  socket.send(Buffer.from('\0x'));
  await once(stdin, 'data');
  const sizes = resize[Symbol.asyncIterator]();
  assert.deepEqual((await sizes.next()).value, { width: 30, height: 5 });
  socket.close();
});

test('a command that does not read stops the client, and pongs keep it alive', async () => {
  const { url, session, clock } = await serve();
  const socket = new WebSocket(url, 'v5.channel.k8s.io');
  await once(socket, 'open');
  const { stdin } = await session;
  const chunk = Buffer.alloc(1 << 20);
  const total = 24;
  for (let count = 0; count < total; count += 1) socket.send(chunk);
  for (let turn = 0; turn < 300; turn += 1) await new Promise((resolve) => setImmediate(resolve));
  assert.ok(socket.bufferedAmount > 0, 'the client could send everything');
  const ponged = once(socket, 'pong');
  await clock.advance(5_000);
  await ponged;
  let size = 0;
  stdin.on('data', (part: Buffer) => (size += part.length));
  socket.send(Buffer.from([255, 0]));
  await once(stdin, 'end');
  assert.equal(size, total * (chunk.length - 1));
  socket.close();
});

test('a client that goes away ends the session', async () => {
  const { url, session } = await serve();
  const socket = new WebSocket(url, 'v5.channel.k8s.io');
  await once(socket, 'open');
  const { closed, finish } = await session;
  socket.terminate();
  if (!closed.aborted) await once(closed, 'abort');
  await finish(exitStatus(0));
});

test('unknown subprotocols are refused with 400', async () => {
  const { url } = await serve();
  const socket = new WebSocket(url, 'v9.channel.k8s.io');
  const [, response] = (await once(socket, 'unexpected-response')) as [
    unknown,
    import('node:http').IncomingMessage,
  ];
  assert.equal(response.statusCode, 400);
  response.resume();
});

test('port-forward over channels: ports first, then data, errors beside it', async () => {
  const { url } = await serve();
  const socket = new WebSocket(`${url}/forward?ports=8080&ports=1`, 'v4.channel.k8s.io');
  const received = messages(socket);
  await once(socket, 'open');
  const until = async (count: number) => {
    while (received.length < count) await once(socket, 'message');
  };
  await until(5);
  const announced = received.slice(0, 4).map((each) => [each[0], each.readUInt16LE(1)]);
  assert.deepEqual(announced, [
    [0, 8080],
    [1, 8080],
    [2, 1],
    [3, 1],
  ]);
  assert.equal(received[4]?.toString(), '\x03no such port');
  socket.send(Buffer.from('\0echo'));
  await until(6);
  assert.equal(received[5]?.toString(), '\0echo');
  socket.close();
});
