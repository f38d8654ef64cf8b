import assert from 'node:assert/strict';
import { lstat, mkdtemp, readFile, readdir, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { parse } from 'yaml';
import { addLogin, changeKubeconfig, kubeconfigPath, removeLogin } from './kubeconfig-file.ts';
import type { LoginEntry } from './kubeconfig-file.ts';

const ENTRY: LoginEntry = {
  context: 'acme@host',
  server: 'https://10.0.0.1:6443',
  caCert: 'a certificate',
  profile: 'acme@host',
  command: '/opt/hypernetes',
  env: { HYPERNETES_NODE: '/usr/bin/node' },
  namespace: 'acme',
};
const LOGIN = { context: ENTRY.context, profile: ENTRY.profile };

const FOREIGN = `# mine
apiVersion: v1
kind: Config
preferences: {colors: true}
clusters:
- name: work # do not touch
  cluster: {server: https://work.example, tls-server-name: x, extensions: [{name: e, extension: 1}]}
users:
- name: me
  user:
    auth-provider: {name: oidc, config: {id-token: "0123"}}
contexts:
- name: work
  context: {cluster: work, user: me, namespace: deep}
current-context: work
extensions: []
`;

interface Config {
  [field: string]: unknown;
  clusters: { name: string; cluster: Record<string, string> }[];
  users: { name: string; user: { exec?: Record<string, unknown> } }[];
  contexts: { name: string; context: Record<string, string> }[];
}
const read = (text: string) => parse(text) as Config;

test('addLogin() makes a kubeconfig where there is none', () => {
  for (const nothing of [undefined, '', '# only a comment\n']) {
    const { text, previousContext } = addLogin(nothing, ENTRY);
    const config = read(text);
    assert.equal(previousContext, undefined);
    assert.equal(config['current-context'], 'acme@host');
    const [cluster] = config.clusters;
    assert.deepEqual(cluster?.cluster, {
      server: ENTRY.server,
      'certificate-authority-data': Buffer.from(ENTRY.caCert).toString('base64'),
    });
    const [user] = config.users;
    assert.deepEqual(user?.user.exec?.['args'], ['credential', '--profile', 'acme@host']);
    assert.equal(user.user.exec['apiVersion'], 'client.authentication.k8s.io/v1');
    assert.equal(user.user.exec['interactiveMode'], 'IfAvailable');
    assert.deepEqual(config.contexts, [
      {
        name: 'acme@host',
        context: { cluster: cluster.name, user: user.name, namespace: 'acme' },
      },
    ]);
  }
});

test('addLogin() loses nothing of what is there, comments included', () => {
  const { text, previousContext } = addLogin(FOREIGN, ENTRY);
  assert.equal(previousContext, 'work');
  const [before, after] = [read(FOREIGN), read(text)];
  for (const section of ['clusters', 'users', 'contexts'] as const) {
    assert.deepEqual(after[section].slice(0, 1), before[section]);
    assert.equal(after[section].length, 2);
  }
  assert.deepEqual(after['preferences'], before['preferences']);
  assert.deepEqual(after['extensions'], []);
  assert.match(text, /^# mine\n/);
  assert.match(text, /# do not touch/);
});

test('a kubeconfig in JSON, as some tools write it, is taken too', () => {
  const text = JSON.stringify(read(FOREIGN));
  const config = read(addLogin(text, ENTRY).text);
  assert.deepEqual(config.users[0], read(FOREIGN).users[0]);
  assert.equal(config['current-context'], 'acme@host');
});

test('logging in again replaces the same context, and adds nothing twice', () => {
  const first = addLogin(FOREIGN, ENTRY).text;
  const moved = { ...ENTRY, server: 'https://10.0.0.2:6443', namespace: undefined };
  const second = addLogin(first, moved);
  assert.equal(second.previousContext, undefined, 'itself is no context to go back to');
  const config = read(second.text);
  assert.equal(config.contexts.length, 2);
  assert.equal(config.users.length, 2);
  const context = config.contexts.find(({ name }) => name === 'acme@host')?.context;
  assert.equal(context?.['namespace'], undefined);
  const cluster = config.clusters.find(({ name }) => name === context?.['cluster']);
  assert.equal(cluster?.cluster['server'], moved.server);
});

test("somebody else's context is not replaced", () => {
  assert.throws(
    () => addLogin(FOREIGN, { ...ENTRY, context: 'work' }),
    /There is a context "work" already, which is not of "hypernetes login"/,
  );
});

test('removeLogin() is the opposite of addLogin()', () => {
  const { text, previousContext } = addLogin(FOREIGN, ENTRY);
  const config = read(removeLogin(text, { ...LOGIN, previousContext }));
  assert.deepEqual(config, read(FOREIGN));
  const alone = read(removeLogin(addLogin(undefined, ENTRY).text, LOGIN));
  assert.deepEqual([alone.clusters, alone.users, alone.contexts], [[], [], []]);
});

test('removeLogin() leaves a cluster that another context has, and a context that is not ours', () => {
  const two = addLogin(addLogin(undefined, ENTRY).text, {
    ...{ ...ENTRY, context: 'beta@host', profile: 'beta@host' },
  }).text;
  const config = read(removeLogin(two, LOGIN));
  assert.equal(config.clusters.length, 1);
  assert.deepEqual(
    config.contexts.map(({ name }) => name),
    ['beta@host'],
  );
  assert.equal(config['current-context'], 'beta@host', 'it was not the current one');
  const untouched = removeLogin(FOREIGN, { context: 'work', profile: 'work' });
  assert.deepEqual(read(untouched), read(FOREIGN));
});

test('what is no kubeconfig is refused, and not overwritten', () => {
  assert.throws(() => addLogin('clusters: [', ENTRY), /Cannot read the kubeconfig/);
  assert.throws(() => addLogin('- a\n- b\n', ENTRY), /it is not an object/);
});

test('changeKubeconfig() follows links, keeps to its owner and leaves no other file', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'kubeconfig-'));
  try {
    const [target, link] = [join(folder, 'target'), join(folder, 'link')];
    await writeFile(target, FOREIGN, { mode: 0o644 });
    await symlink(target, link);
    await changeKubeconfig(link, (text) => addLogin(text, ENTRY));
    assert.ok((await lstat(link)).isSymbolicLink());
    assert.equal((await stat(target)).mode & 0o777, 0o600);
    assert.equal(read(await readFile(target, 'utf8')).contexts.length, 2);
    const fresh = join(folder, 'new/config');
    await changeKubeconfig(fresh, (text) => addLogin(text, ENTRY));
    assert.equal((await stat(fresh)).mode & 0o777, 0o600);
    assert.deepEqual((await readdir(folder)).sort(), ['link', 'new', 'target']);
  } finally {
    await rm(folder, { recursive: true });
  }
});

test('many logins at once all end up in the file', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'kubeconfig-'));
  try {
    const path = join(folder, 'config');
    const names = Array.from({ length: 12 }, (_, index) => `t${index}@host`);
    const change = (name: string) =>
      changeKubeconfig(path, (text) => addLogin(text, { ...ENTRY, context: name, profile: name }));
    await Promise.all(names.map(change));
    const config = read(await readFile(path, 'utf8'));
    assert.deepEqual(config.contexts.map(({ name }) => name).sort(), names.sort());
  } finally {
    await rm(folder, { recursive: true });
  }
});

test('kubeconfigPath() is where kubectl looks', async () => {
  const home = { HOME: '/home/a' };
  assert.equal(await kubeconfigPath('/x', { ...home, KUBECONFIG: '/y' }), '/x');
  assert.equal(await kubeconfigPath(undefined, home), '/home/a/.kube/config');
  const listed = { ...home, KUBECONFIG: `/nowhere/a:${import.meta.filename}:/nowhere/b` };
  assert.equal(await kubeconfigPath(undefined, listed), import.meta.filename);
  const absent = { ...home, KUBECONFIG: '/nowhere/a::/nowhere/b' };
  assert.equal(await kubeconfigPath(undefined, absent), '/nowhere/b');
});
