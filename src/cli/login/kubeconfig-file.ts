import { chown, mkdir, realpath, stat } from 'node:fs/promises';
import { homedir } from 'node:os';
import { delimiter, dirname, join, resolve } from 'node:path';
import { isMap, isSeq, parseDocument } from 'yaml';
import type { Document, YAMLMap } from 'yaml';
import { systemClock } from '../../base/clock.ts';
import { readFileIfExists, writeFileAtomic } from '../../base/files.ts';
import { UsageError } from '../errors.ts';
import { withLock } from './lock.ts';

/** What login puts into a kubeconfig: one context with its cluster and user. */
export interface LoginEntry {
  context: string;
  server: string;
  caCert: string;
  /** Of the profile that the exec plugin reads. */
  profile: string;
  /** Path of the program that is the plugin. */
  command: string;
  env: Record<string, string>;
  namespace?: string;
  /** Of `client.authentication.k8s.io`. @default v1 */
  execVersion?: 'v1' | 'v1beta1' | undefined;
}

/** kubectl waits for nobody; who holds its lock is done in a moment. */
const LOCK_WAIT_MS = 3_000;
const EXEC_GROUP = 'client.authentication.k8s.io';
/** Before the names of users that are login's own to change. */
const USER_PREFIX = 'hypernetes:';

const SECTIONS = { clusters: 'cluster', contexts: 'context', users: 'user' } as const;
type Section = keyof typeof SECTIONS;

/**
 * The file that kubectl would write to: the one that is named, the first of $KUBECONFIG that exists
 * (or its last), or `~/.kube/config`.
 */
export async function kubeconfigPath(
  given: string | undefined,
  env: NodeJS.ProcessEnv = process.env,
): Promise<string> {
  if (given) return resolve(given);
  const listed = (env['KUBECONFIG'] ?? '').split(delimiter).filter((path) => path !== '');
  for (const path of listed) {
    if (await stat(path).catch(() => undefined)) return resolve(path);
  }
  const last = listed.at(-1);
  return last ? resolve(last) : join(env['HOME'] || homedir(), '.kube/config');
}

/**
 * Adds the context and makes it the current one. What else is in the text stays as it is, comments
 * included; a context of login's own with this name is replaced.
 *
 * @param text of the file; undefined where there is none
 * @returns the new text, and the context that was the current one
 * @throws UsageError when the context's name is that of something else
 */
export function addLogin(
  text: string | undefined,
  entry: LoginEntry,
): { text: string; previousContext?: string } {
  const document = parse(text);
  const existing = find(document, 'contexts', entry.context);
  const owner: unknown = existing?.getIn(['context', 'user']);
  if (existing && !String(owner).startsWith(USER_PREFIX)) {
    throw new UsageError(
      `There is a context "${entry.context}" already, which is not of "hypernetes login": ` +
        'choose another name with --context.',
    );
  }
  const cluster = clusterName(entry.server);
  const user = `${USER_PREFIX}${entry.profile}`;
  const { context, namespace, server } = entry;
  put(document, 'clusters', cluster, {
    server,
    'certificate-authority-data': Buffer.from(entry.caCert).toString('base64'),
  });
  put(document, 'users', user, {
    exec: {
      apiVersion: `${EXEC_GROUP}/${entry.execVersion ?? 'v1'}`,
      command: entry.command,
      args: ['credential', '--profile', entry.profile],
      env: Object.entries(entry.env).map(([name, value]) => ({ name, value })),
      interactiveMode: 'IfAvailable',
      provideClusterInfo: false,
      installHint: 'It is part of Hypernetes: log in again with "hypernetes login".',
    },
  });
  put(document, 'contexts', context, { cluster, user, ...(namespace && { namespace }) });
  const previous: unknown = document.get('current-context');
  document.set('current-context', context);
  return {
    text: document.toString({ lineWidth: 0 }),
    ...(typeof previous === 'string' &&
      previous !== '' &&
      previous !== context && { previousContext: previous }),
  };
}

/**
 * Takes away what `addLogin` put there: the context, its user, and the cluster if no other context
 * has it. Where the context was the current one, the one before is again.
 */
export function removeLogin(text: string, login: { context: string; profile: string } & Previous) {
  const document = parse(text);
  const user = `${USER_PREFIX}${login.profile}`;
  const context = find(document, 'contexts', login.context);
  if (context?.getIn(['context', 'user']) === user) {
    const cluster: unknown = context.getIn(['context', 'cluster']);
    drop(document, 'contexts', login.context);
    const isUsed = items(document, 'contexts').some(
      (other) => other.getIn(['context', 'cluster']) === cluster,
    );
    if (!isUsed && String(cluster).startsWith(USER_PREFIX)) {
      drop(document, 'clusters', String(cluster));
    }
    if (document.get('current-context') === login.context) {
      const previous = login.previousContext;
      const goesBack = previous !== undefined && find(document, 'contexts', previous);
      document.set('current-context', goesBack ? previous : '');
    }
  }
  drop(document, 'users', user);
  return document.toString({ lineWidth: 0 });
}

interface Previous {
  previousContext?: string;
}

/** @throws UsageError when there is no such context */
export function useContext(text: string, context: string, namespace?: string): string {
  const document = parse(text);
  const found = find(document, 'contexts', context);
  if (!found) throw new UsageError(`There is no context "${context}" in the kubeconfig.`);
  if (namespace) found.setIn(['context', 'namespace'], namespace);
  document.set('current-context', context);
  return document.toString({ lineWidth: 0 });
}

/**
 * Changes a kubeconfig as kubectl does: under its lock, and in one piece. A link is followed, and
 * the file stays its owner's.
 */
export async function changeKubeconfig<T extends { text: string }>(
  path: string,
  change: (text: string | undefined) => T,
): Promise<T> {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  const target = await realpath(path).catch(() => path);
  const lock = { clock: systemClock, waitMs: LOCK_WAIT_MS };
  return withLock(`${path}.lock`, lock, async () => {
    const before = await stat(target).catch(() => undefined);
    const result = change(await readFileIfExists(target));
    await writeFileAtomic(target, result.text);
    const isOthers = before && before.uid !== process.geteuid?.();
    if (isOthers) await chown(target, before.uid, before.gid);
    return result;
  });
}

function clusterName(server: string): string {
  return `${USER_PREFIX}${new URL(server).host}`;
}

function parse(text: string | undefined): Document {
  const document: Document = parseDocument(text ?? '');
  const [error] = document.errors;
  if (error) throw new UsageError(`Cannot read the kubeconfig: ${error.message}`);
  if (document.contents === null) {
    document.contents = document.createNode({
      ...{ apiVersion: 'v1', kind: 'Config', clusters: [], users: [], contexts: [] },
    });
  }
  if (!isMap(document.contents)) {
    throw new UsageError('Cannot use the kubeconfig: it is not an object.');
  }
  return document;
}

function items(document: Document, section: Section): YAMLMap[] {
  const list = document.get(section);
  return isSeq(list) ? list.items.filter((item) => isMap(item)) : [];
}

function find(document: Document, section: Section, name: string): YAMLMap | undefined {
  return items(document, section).find((item) => item.get('name') === name);
}

function put(document: Document, section: Section, name: string, value: object): void {
  const existing = find(document, section, name);
  if (existing) {
    existing.set(SECTIONS[section], document.createNode(value));
    return;
  }
  const list = document.get(section);
  const item = document.createNode({ name, [SECTIONS[section]]: value });
  if (!isSeq(list)) document.set(section, document.createNode([item]));
  // `[]` is written on one line, and so would be what is put into it.
  else {
    if (list.items.length === 0) list.flow = false;
    list.add(item);
  }
}

function drop(document: Document, section: Section, name: string): void {
  const list = document.get(section);
  if (!isSeq(list)) return;
  list.items = list.items.filter((item) => !isMap(item) || item.get('name') !== name);
}
