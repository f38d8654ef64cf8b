import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ImageStatus, PodState, TransferProgress } from '../../api/hyperd.ts';
import { FakeClock } from '../../base/clock.fake.ts';
import { Command } from 'commander';
import { LABEL } from '../../kubelet/history.ts';
import { addImageCommands, addPodGroup, addRunCommands } from './commands.ts';
import type { Session } from './commands.ts';
import { completionsFor } from './completion.ts';
import { bytes } from './format.ts';
import { credentialsFor } from './images.ts';
import { familiar, findContainer, findImage, podName, refuseForeign } from './names.ts';
import { showTransfer } from './transfer.ts';

/** What people write, and what they are shown. */

const image = (id: string, ...references: string[]) =>
  ({ id: `sha256:${id.padEnd(64, '0')}`, references }) as ImageStatus;

test('images are found by every name of theirs, and by the beginning of an id', () => {
  const images = [
    image('abcd12', 'docker.io/library/busybox:1', 'docker.io/library/busybox@sha256:aa'),
    image('abcd34', 'localhost:5000/a/b:latest'),
  ];
  assert.equal(findImage(images, 'busybox:1'), images[0]);
  assert.equal(findImage(images, 'localhost:5000/a/b'), images[1]);
  assert.equal(findImage(images, 'abcd3'), images[1]);
  assert.equal(findImage(images, `sha256:${'abcd12'.padEnd(64, '0')}`), images[0]);
  assert.equal(findImage(images, 'nothing'), undefined);
  assert.throws(() => findImage(images, 'abcd'), /could be several images/);
  assert.equal(familiar('docker.io/library/busybox:1'), 'busybox:1');
});

test('a pod of Kubernetes has its namespace in its name, and is changed by force alone', () => {
  const own = { id: 'web', name: 'web', namespace: '', labels: {} } as unknown as PodState;
  const other = { ...own, namespace: 'ns', labels: { [LABEL.podUid]: 'u' } };
  assert.equal(podName(own), 'web');
  assert.equal(podName(other), 'ns/web');
  refuseForeign(own, 'stop', false);
  refuseForeign(other, 'stop', true);
  assert.throws(
    () => refuseForeign(other, 'stop', false),
    /Cannot stop pod "ns\/web": it is Kubern/,
  );
});

test('a container is meant where there is one, and its newest attempt', () => {
  const containers = [
    { id: 'a', name: 'a' },
    { id: 'a--1', name: 'a' },
  ];
  const pod = { id: 'p', name: 'p', labels: {}, containers } as unknown as PodState;
  assert.equal(findContainer(pod, undefined), 'a--1');
  const two = { ...pod, containers: [...pod.containers, { id: 'b', name: 'b' }] } as PodState;
  assert.throws(() => findContainer(two, undefined), /several containers: name one with -c.*a, b/);
  assert.equal(findContainer(two, 'b'), 'b');
  assert.throws(() => findContainer(two, 'c'), /no container "c"; there are: a, b/);
});

test('credentials are those that docker has been logged in with', () => {
  const auth = Buffer.from('me:se:cret').toString('base64');
  const hub = 'https://index.docker.io/v1/';
  const text = JSON.stringify({ auths: { 'quay.io': { auth }, [hub]: { auth }, 'x.io': {} } });
  const mine = [{ username: 'me', password: 'se:cret' }];
  assert.deepEqual(credentialsFor(text, 'quay.io', 'f'), mine);
  assert.deepEqual(credentialsFor(text, 'docker.io', 'f'), mine);
  assert.deepEqual(credentialsFor(text, 'x.io', 'f'), []);
  assert.deepEqual(credentialsFor('{}', 'quay.io', 'f'), []);
  assert.throws(() => credentialsFor('{', 'quay.io', '/a/file'), /credentials from \/a\/file/);
});

async function* steps(clock: FakeClock): AsyncGenerator<TransferProgress> {
  const digest = `sha256:${'ab'.repeat(32)}`;
  for (const doneBytes of [0, 512, 1024]) {
    yield { type: 'layer', digest, doneBytes, totalBytes: 1024 };
    await clock.advance(200);
  }
  yield { type: 'disk' };
  yield { type: 'done', image: image('1') };
}

test('showTransfer() draws bars over each other, and nothing where nobody looks', async () => {
  const clock = new FakeClock();
  const screen = {
    isTTY: true,
    columns: 60,
    text: '',
    write: (text: string) => (screen.text += text),
  };
  await showTransfer(steps(clock), screen, clock);
  const lines = screen.text.split('\n');
  assert.match(lines[0] ?? '', /^\x1b\[2Kabababababab \[ {24}\] 0 B of 1\.0 KiB$/);
  assert.match(lines[1] ?? '', /^\x1b\[1A\x1b\[2Kabababababab \[={12} {12}\] 512 B/);
  assert.ok(lines.every((line) => line.replace(/\x1b\[\d*[AK]/g, '').length < 60));
  const quiet = { ...screen, isTTY: false, text: '' };
  await showTransfer(steps(clock), quiet, clock);
  assert.equal(quiet.text, '');
  const status = { message: 'no such host', code: 503 } as never;
  const failing = async function* (): AsyncGenerator<TransferProgress> {
    yield { type: 'failed', status };
  };
  await assert.rejects(showTransfer(failing(), quiet, clock), /no such host/);
  assert.equal(bytes(1536), '1.5 KiB');
});

test('completionsFor() knows commands, options and what an argument is', () => {
  const program = new Command('hyperctl')
    .option('--data-dir <directory>')
    .enablePositionalOptions();
  const session: Session = { use: async () => {}, useOrStart: async () => {} };
  addRunCommands(program, session);
  addPodGroup(program, session);
  addImageCommands(program, session);
  const complete = (...words: string[]) => completionsFor(program, words);
  assert.deepEqual(complete('r').words, ['run']);
  assert.deepEqual(complete('--data-dir', '/x', 'image', 'p').words, ['pull', 'push']);
  assert.ok(complete('run', '--en').words.includes('--env'));
  assert.equal(complete('run', '').dynamic, 'images');
  assert.equal(complete('run', '--name', 'x', '').dynamic, 'images');
  assert.equal(complete('pod', 'stop', 'a', '').dynamic, 'pods');
  assert.deepEqual(complete('run', '--name', ''), { words: [], dynamic: undefined });
  assert.equal(complete('pod', 'create', '').dynamic, undefined);
});
