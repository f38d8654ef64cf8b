import assert from 'node:assert/strict';
import { once } from 'node:events';
import { request } from 'node:http';
import type { IncomingMessage } from 'node:http';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import { test } from 'node:test';
import { STREAM_CHANNEL } from '../../api/hyperd.ts';
import type { HyperdEvent, PodState, ProcessExit } from '../../api/hyperd.ts';
import { decodeLogRecords } from '../../api/hyperlog.ts';
import { readFrames, writeFrames } from '../../api/hyperstream.ts';
import type { Status } from '../../api/status.ts';
import { systemClock } from '../../base/clock.ts';
import { silentLog } from '../../base/log.ts';
import { processSpec } from '../agent/testing/guest.ts';
import type { Daemon } from '../daemon/daemon.ts';
import {
  IMAGE_ID,
  containerSpec,
  createRig,
  isRunning,
  podSpec,
  podUntil,
  runningPod,
} from '../daemon/testing/rig.ts';
import type { Rig } from '../daemon/testing/rig.ts';
import { serveHyperd } from './server.ts';

interface Door {
  rig: Rig;
  daemon: Daemon;
  socketPath: string;
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

async function openDoor(): Promise<Door> {
  const rig = await createRig();
  const daemon = await rig.start();
  const socketPath = join(rig.directory, 'hyperd.sock');
  const server = await serveHyperd({ daemon, socketPath, clock: systemClock, log: silentLog });
  return {
    rig,
    daemon,
    socketPath,
    close: () => server.close(),
    async [Symbol.asyncDispose]() {
      await server.close();
      await rig[Symbol.asyncDispose]();
    },
  };
}

function open(door: Door, method: string, path: string, body?: unknown): Promise<IncomingMessage> {
  const text = typeof body === 'string' ? body : body === undefined ? '' : JSON.stringify(body);
  return new Promise((resolve, reject) => {
    const outgoing = request({ socketPath: door.socketPath, method, path: `/v1${path}` }, resolve);
    outgoing.on('error', reject).end(text);
  });
}

async function call<T>(
  door: Door,
  method: string,
  path: string,
  body?: unknown,
): Promise<{ code: number; value: T }> {
  const response = await open(door, method, path, body);
  const parts: Buffer[] = [];
  for await (const part of response) parts.push(part as Buffer);
  const text = Buffer.concat(parts).toString('utf8');
  const value = (text === '' ? undefined : JSON.parse(text)) as T;
  return { code: response.statusCode ?? 0, value };
}

/** The socket after 101, or the refusal. */
async function upgrade(
  door: Door,
  path: string,
  body?: unknown,
): Promise<{ socket: Duplex } | { code: number; status: Status }> {
  const text = body === undefined ? '' : JSON.stringify(body);
  const headers = {
    connection: 'Upgrade',
    upgrade: 'hyper-stream',
    'content-length': Buffer.byteLength(text),
  };
  const options = { socketPath: door.socketPath, method: 'POST', path: `/v1${path}`, headers };
  return new Promise((resolve, reject) => {
    const outgoing = request(options);
    outgoing.on('upgrade', (_response, socket, head) => {
      if (head.length > 0) socket.unshift(head);
      resolve({ socket });
    });
    outgoing.on('response', async (response) => {
      const parts: Buffer[] = [];
      for await (const part of response) parts.push(part as Buffer);
      const status = JSON.parse(Buffer.concat(parts).toString('utf8')) as Status;
      resolve({ code: response.statusCode ?? 0, status });
    });
    outgoing.on('error', reject).end(text);
  });
}

async function stream(door: Door, path: string, body?: unknown): Promise<Duplex> {
  const answer = await upgrade(door, path, body);
  if ('socket' in answer) return answer.socket;
  throw new Error(JSON.stringify(answer.status));
}

const EXEC = {
  process: processSpec(['sh']),
  stdin: true,
  stdout: true,
  stderr: true,
  timeoutMs: 0,
};
const execPath = (pod: string) => `/pods/${pod}/containers/${pod}-c/exec`;

/** Unlike `once`, also of one that ends with an error. */
function closing(stream: NodeJS.EventEmitter): Promise<void> {
  return new Promise((resolve) => stream.once('close', resolve));
}

/** What a process said, and how it ended. */
async function readAll(socket: Duplex) {
  const said = { 1: '', 2: '' } as Record<number, string>;
  let exit: ProcessExit | undefined;
  for await (const { channel, payload } of readFrames(socket)) {
    if (channel === STREAM_CHANNEL.exit) exit = JSON.parse(payload.toString()) as ProcessExit;
    else said[channel] += payload.toString();
  }
  return { stdout: said[1], stderr: said[2], exit };
}

test('pods, containers and images are made, told and removed', async () => {
  await using door = await openDoor();
  const info = await call<{ accelerator: string }>(door, 'GET', '/info');
  assert.deepEqual([info.code, info.value.accelerator], [200, 'fake']);
  assert.equal((await call(door, 'PUT', '/pods/a', podSpec('a'))).code, 200);
  await podUntil(door.daemon, 'a', isRunning);
  const path = '/pods/a/containers/c';
  assert.equal((await call(door, 'PUT', path, containerSpec('c'))).code, 200);
  assert.deepEqual((await call(door, 'GET', path)).value, containerSpec('c'));
  assert.equal((await call(door, 'POST', `${path}/signal?signal=SIGUSR1`)).code, 204);
  assert.deepEqual(door.rig.guest('a').signals, [{ id: 'c', signal: 10 }]);
  await door.rig.guest('a').exit('c', 1);
  assert.equal((await call(door, 'DELETE', path)).code, 204);
  const pods = await call<PodState[]>(door, 'GET', '/pods');
  assert.deepEqual(
    pods.value.map(({ id, phase }) => [id, phase]),
    [['a', 'running']],
  );
  const stopped = await call<PodState>(door, 'POST', '/pods/a/stop');
  assert.equal(stopped.value.phase, 'stopped');
  assert.equal((await call(door, 'DELETE', '/pods/a')).code, 204);
  assert.equal((await call(door, 'DELETE', '/pods/a')).code, 204);
  const pull = { reference: IMAGE_ID, credentials: [], policy: 'never' };
  assert.equal((await call(door, 'POST', '/images/pull', pull)).code, 200);
});

/** method, path, body, code, and what the message has to name */
const REFUSALS: [string, string, unknown, number, RegExp][] = [
  ['GET', '/nothing', undefined, 404, /\/v1\/nothing/],
  ['POST', '/info', undefined, 405, /POST/],
  ['GET', '/pods/none', undefined, 404, /none/],
  ['GET', '/pods/%E0%A4%A', undefined, 400, /percent/],
  ['PUT', '/pods/b', '{ half', 400, /not JSON/],
  ['PUT', '/pods/b', podSpec('other'), 400, /"other" is not that of the path/],
  ['PUT', '/pods/..%2Fb', podSpec('../b'), 422, /id/],
  ['PUT', '/pods/b', podSpec('b', { memoryMib: 1 }), 422, /memoryMib.*from 48/],
  ['PUT', '/pods/b', podSpec('b', { hostname: '-b' }), 422, /hostname/],
  ['PUT', '/pods/b', podSpec('b', { cpuCount: 0.5 }), 422, /cpuCount/],
  ['PUT', '/pods/b', podSpec('b', { sysctls: null as never }), 422, /sysctls/],
  [
    'PUT',
    '/pods/b',
    podSpec('b', { volumes: [{ name: 'v', type: 'host' } as never] }),
    422,
    /type/,
  ],
  [
    'PUT',
    '/pods/b',
    podSpec('b', {
      volumes: [{ name: 'v', type: 'files', content: { version: 1, files: [{}] } } as never],
    }),
    422,
    /volumes.*path/,
  ],
  ['PUT', '/pods/a/containers/c', containerSpec('c', { imageId: 'busybox' }), 422, /imageId/],
  ['PUT', '/pods/a/containers/c', containerSpec('d'), 400, /"d"/],
  ['PUT', '/pods/a/volumes/v', { version: 1, files: [] }, 404, /v/],
  ['PUT', '/pods/a/volumes/v', { version: -1, files: [] }, 422, /version/],
  ['POST', '/pods/a/containers/a-c/signal', undefined, 400, /signal/],
  ['POST', '/pods/a/containers/a-c/signal?signal=NO', undefined, 400, /NO/],
  ['DELETE', '/pods/a/containers/a-c', undefined, 409, /it runs/],
  ['GET', '/pods/a/containers/a-c/log?tailLines=-1', undefined, 400, /tailLines/],
  ['GET', '/pods/a/containers/none', undefined, 404, /none/],
  ['GET', '/pods/a/containers/none/log', undefined, 404, /none/],
  ['GET', '/events?after=later', undefined, 400, /after/],
  ['GET', '/events?after=99999', undefined, 410, /99999/],
  ['POST', '/pods/a/probe', { type: 'icmp' }, 422, /type/],
  ['POST', '/images/pull', { reference: 'x', credentials: [], policy: 'maybe' }, 422, /policy/],
  ['POST', '/images/pull', { reference: 'x', credentials: [], policy: 'never' }, 404, /"x"/],
  ['DELETE', '/images', undefined, 400, /reference/],
];

test('what makes no sense is refused with the field and the reason', async () => {
  await using door = await openDoor();
  await runningPod(door.daemon, 'a');
  for (const [method, path, body, code, message] of REFUSALS) {
    const answer = await call<Status>(door, method, path, body);
    const what = `${method} ${path}: ${JSON.stringify(answer.value)}`;
    assert.equal(answer.code, code, what);
    assert.equal(answer.value.kind, 'Status', what);
    assert.match(answer.value.message ?? '', message, what);
  }
  const pull = { reference: 'none', credentials: [], policy: 'always' };
  const missing = await call<Status>(door, 'POST', '/images/pull', pull);
  assert.equal(missing.value.details?.causes?.[0]?.reason, 'NotFound');
  const pods = await call<PodState[]>(door, 'GET', '/pods');
  assert.deepEqual(
    pods.value.map(({ id }) => id),
    ['a'],
  );
});

test('streams are refused as HTTP, with the reason', async () => {
  await using door = await openDoor();
  await runningPod(door.daemon, 'a');
  const refusals: [string, unknown, number, RegExp][] = [
    ['/pods/none/port/80', undefined, 404, /none/],
    ['/pods/a/port/0', undefined, 400, /65535/],
    ['/pods/a/nothing', undefined, 404, /nothing/],
    ['/pods/a/containers/none/exec', EXEC, 404, /none/],
    [execPath('a'), { ...EXEC, process: {} }, 422, /process/],
    [execPath('a'), { ...EXEC, timeoutMs: -1 }, 422, /timeoutMs/],
    ['/pods/a/containers/a-c/attach', {}, 422, /stdin/],
  ];
  for (const [path, body, code, message] of refusals) {
    const answer = await upgrade(door, path, body);
    assert.ok('status' in answer, path);
    assert.equal(answer.code, code, path);
    assert.match(answer.status.message ?? '', message, path);
  }
  await door.daemon.pod('a').stop();
  const late = await upgrade(door, execPath('a'), EXEC);
  assert.equal('code' in late && late.code, 409);
});

test('exec carries input, both outputs and the exit code', async () => {
  await using door = await openDoor();
  await runningPod(door.daemon, 'a');
  const socket = await stream(door, execPath('a'), EXEC);
  const process = door.rig.guest('a').processes[0] ?? assert.fail();
  const all = readAll(socket);
  await writeFrames(socket, STREAM_CHANNEL.stdin, Buffer.from('typed'));
  await writeFrames(socket, STREAM_CHANNEL.resize, Buffer.from('{"width":80,"height":24}'));
  await writeFrames(socket, STREAM_CHANNEL.stdin, Buffer.alloc(0));
  const typed: Buffer[] = [];
  for await (const chunk of process.stdin) typed.push(chunk as Buffer);
  assert.equal(Buffer.concat(typed).toString(), 'typed');
  process.stdout.write('out');
  process.stderr.write('err');
  process.exit(3);
  const { stdout, stderr, exit } = await all;
  assert.deepEqual([stdout, stderr, exit?.exitCode], ['out', 'err', 3]);
});

test('a process that closes its input still says all it has to say', async () => {
  await using door = await openDoor();
  await runningPod(door.daemon, 'a');
  const socket = await stream(door, execPath('a'), EXEC);
  const process = door.rig.guest('a').processes[0] ?? assert.fail();
  process.stdin.destroy();
  const all = readAll(socket);
  const input = Buffer.alloc(1 << 20, 'x');
  await writeFrames(socket, STREAM_CHANNEL.stdin, input).catch(() => {});
  process.stdout.write('late words');
  process.exit(0);
  const { stdout, exit } = await all;
  assert.deepEqual([stdout, exit?.exitCode], ['late words', 0]);
});

test('a client that half closes still gets the output and the exit code', async () => {
  await using door = await openDoor();
  await runningPod(door.daemon, 'a');
  const socket = await stream(door, execPath('a'), EXEC);
  const process = door.rig.guest('a').processes[0] ?? assert.fail();
  const all = readAll(socket);
  socket.end();
  process.stdin.resume();
  await once(process.stdin, 'end');
  process.stdout.write('answer');
  process.exit(0);
  const { stdout, exit } = await all;
  assert.deepEqual([stdout, exit?.exitCode], ['answer', 0]);
});

test('a client that does not read stops the process, and one that goes ends it', async () => {
  await using door = await openDoor();
  await runningPod(door.daemon, 'a');
  const socket = await stream(door, execPath('a'), EXEC);
  const process = door.rig.guest('a').processes[0] ?? assert.fail();
  let written = 0;
  const chunk = Buffer.alloc(64 * 1024);
  while (written < 64 << 20 && process.stdout.write(chunk)) {
    written += chunk.length;
    await new Promise((resolve) => setImmediate(resolve));
  }
  assert.ok(written < 8 << 20, `${written} bytes were taken though nobody read`);
  const gone = closing(process.stdout);
  socket.destroy();
  await gone;
  assert.equal(process.closed, true);
});

test('an exec ends at its time limit', async () => {
  await using door = await openDoor();
  await runningPod(door.daemon, 'a');
  const socket = await stream(door, execPath('a'), { ...EXEC, timeoutMs: 30.5 });
  assert.equal((await readAll(socket)).exit?.exitCode, 137);
});

test('attach gives the output from now on, the exit, and leaves stdin open for the next', async () => {
  await using door = await openDoor();
  await runningPod(door.daemon, 'a', { stdin: true });
  const guest = door.rig.guest('a');
  await guest.print('a-c', 'before\n');
  const path = '/pods/a/containers/a-c/attach';
  const wanted = { stdin: true, stdout: true, stderr: false };
  const first = await stream(door, path, wanted);
  await writeFrames(first, STREAM_CHANNEL.stdin, Buffer.from('one'));
  await writeFrames(first, STREAM_CHANNEL.stdin, Buffer.alloc(0));
  first.destroy();
  const second = await stream(door, path, wanted);
  const all = readAll(second);
  await writeFrames(second, STREAM_CHANNEL.stdin, Buffer.from('two'));
  await guest.print('a-c', 'hidden\n', 2);
  await guest.print('a-c', 'after\n');
  await guest.exit('a-c', 4);
  const { stdout, stderr, exit } = await all;
  assert.deepEqual([stdout, stderr, exit?.exitCode], ['after\n', '', 4]);
  assert.equal(Buffer.concat(guest.containers.get('a-c')?.stdin ?? []).toString(), 'onetwo');
});

test('a port carries bytes both ways, each with its own end', async () => {
  await using door = await openDoor();
  await runningPod(door.daemon, 'a');
  const socket = await stream(door, '/pods/a/port/8080');
  const sent = Buffer.alloc(3 << 20, 'abcdefg');
  socket.end(sent);
  const parts: Buffer[] = [];
  for await (const part of socket) parts.push(part as Buffer);
  assert.ok(Buffer.concat(parts).equals(sent));
});

test('the log is read from the start, from the tail, by stream, and followed to its end', async () => {
  await using door = await openDoor();
  await runningPod(door.daemon, 'a');
  const guest = door.rig.guest('a');
  for (const line of ['one', 'two', 'three']) await guest.print('a-c', `${line}\n`);
  await guest.print('a-c', 'warning\n', 2);
  const read = async (query: string) => {
    const response = await open(door, 'GET', `/pods/a/containers/a-c/log?${query}`);
    let text = '';
    for await (const { bytes } of decodeLogRecords(response)) text += Buffer.from(bytes).toString();
    return text;
  };
  assert.equal(await read(''), 'one\ntwo\nthree\nwarning\n');
  assert.equal(await read('tailLines=1&stdout=true'), 'three\n');
  assert.equal(await read('stderr=true'), 'warning\n');
  assert.equal(await read('tailLines=0'), '');
  const followed = read('follow=true&tailLines=1');
  await guest.print('a-c', 'more\n');
  await guest.exit('a-c', 0);
  assert.match(await followed, /^(warning\n)?more\n$/);
});

test('events come as they happen', async () => {
  await using door = await openDoor();
  const response = await open(door, 'GET', '/events');
  await runningPod(door.daemon, 'a');
  const seen: string[] = [];
  for await (const part of response) {
    for (const line of (part as Buffer).toString().trim().split('\n')) {
      const { type, pod } = JSON.parse(line) as HyperdEvent;
      seen.push(`${type} ${pod}`);
    }
    if (seen.includes('container a')) break;
  }
  assert.equal(seen[0], 'pod a');
});

test('a door that closes lets nobody hang: requests, followed logs and streams end', async () => {
  await using door = await openDoor();
  await runningPod(door.daemon, 'a', { stdin: true });
  const exec = await stream(door, execPath('a'), EXEC);
  const wanted = { stdin: false, stdout: true, stderr: true };
  const attach = await stream(door, '/pods/a/containers/a-c/attach', wanted);
  const log = await open(door, 'GET', '/pods/a/containers/a-c/log?follow=true');
  const ends = [exec, attach, log].map((each) => {
    each.on('error', () => {}).resume();
    return closing(each);
  });
  await door.close();
  await Promise.all(ends);
});

test('attach before the start misses nothing; input ends where the client says so', async () => {
  await using door = await openDoor();
  const containers = [containerSpec('main', { stdin: true })];
  await call(door, 'POST', '/pods', { spec: podSpec('a'), containers, start: false });
  const attach = { stdin: true, stdout: true, stderr: true, endStdin: true };
  const socket = await stream(door, '/pods/a/containers/main/attach', attach);
  await writeFrames(socket, STREAM_CHANNEL.stdin, Buffer.from('typed ahead'));
  await writeFrames(socket, STREAM_CHANNEL.stdin, Buffer.alloc(0));
  assert.equal((await call(door, 'POST', '/pods/a/start')).code, 200);
  await podUntil(door.daemon, 'a', ({ containers: [main] }) => main?.phase === 'running');
  const guest = door.rig.guest('a');
  await guest.print('main', 'first words');
  await guest.exit('main', 4);
  const parts: string[] = [];
  for await (const { channel, payload } of readFrames(socket)) {
    if (channel === STREAM_CHANNEL.stdout) parts.push(payload.toString());
    if (channel !== STREAM_CHANNEL.exit) continue;
    assert.equal((JSON.parse(payload.toString()) as ProcessExit).exitCode, 4);
  }
  assert.equal(parts.join(''), 'first words');
  assert.equal(Buffer.concat(guest.containers.get('main')?.stdin ?? []).toString(), 'typed ahead');
});

test('a paused pod refuses exec and attach over HTTP too', async () => {
  await using door = await openDoor();
  await runningPod(door.daemon, 'a');
  const paused = await call<PodState>(door, 'POST', '/pods/a/pause');
  assert.equal(paused.value.paused, true);
  const process = processSpec(['sh']);
  const streams = { stdin: false, stdout: true, stderr: true };
  for (const [path, body] of [
    ['exec', { ...streams, process, timeoutMs: 0 }],
    ['attach', streams],
  ] as const) {
    const answer = await upgrade(door, `/pods/a/containers/a-c/${path}`, body);
    assert.ok('code' in answer && answer.code === 409, path);
    assert.match(answer.status.message ?? '', /is paused: unpause it first/);
  }
  assert.equal((await call<PodState>(door, 'POST', '/pods/a/unpause')).value.paused, false);
});
