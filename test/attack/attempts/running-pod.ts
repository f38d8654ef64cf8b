import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { startForward } from '../../e2e/support/forward.ts';
import { differs, hides, isSame } from '../support/attempt.ts';
import type { Verdict } from '../support/attempt.ts';
import type { Answer } from '../support/client.ts';
import { BASE, POD, SERVED, TARGET, answer, showsCanary } from '../support/cluster-scene.ts';
import type { ClusterAttempt, ClusterScene } from '../support/cluster-scene.ts';
import type { Who } from '../support/world.ts';

/** Refused by the server: not for want of a file, a flag or a connection. */
const isForbidden: Verdict<ClusterScene> = ({ status, text }) =>
  status === 403 && /forbidden/i.test(text) ? undefined : `${status} ${text.slice(0, 300)}`;

const kubectl =
  (...args: string[]) =>
  ({ kubectl: say }: ClusterScene, who: Who) =>
    say(who, ...args);

const [namespace, pod] = [['-n', TARGET.namespace], TARGET.name];
const DRY = '--dry-run=server';
const PRINT = ['--', 'cat', SERVED.file];

/** Of which the victim, with the same words, gets its canary. */
const READS = [
  ['logs', pod],
  ['logs', pod, '--all-containers'],
  ['logs', '-l', `app=${pod}`],
  ['logs', pod, '-c', 'main', '--follow'],
  ['exec', pod, ...PRINT],
  ['exec', `pod/${pod}`, '-c', 'main', ...PRINT],
  ['attach', pod],
  ['describe', 'pod', pod],
  ['describe', 'pods', '-l', `app=${pod}`],
  ['get', 'pod', pod, '-o', 'yaml'],
  ['get', 'pods', '-o', 'json'],
];

const RAW = [`${POD}/log`, POD, `/api/v1/namespaces/${TARGET.namespace}/pods`];
const VIA_NODE = ['containerLogs/acme/web/main', 'pods', 'pods/', 'containerLogs/acme/web/main/'];

/** Words that change the victim's pod, and are done without effect by the victim. */
const WRITES = [
  ['delete', 'pod', pod],
  ['delete', 'pods', '--all'],
  ['delete', 'pod', pod, '--now'],
  ['annotate', 'pod', pod, 'planted=yes'],
  ['label', 'pod', pod, 'planted=yes'],
  ['patch', 'pod', pod, '-p', '{"spec":{"activeDeadlineSeconds":1}}'],
  ['set', 'image', `pod/${pod}`, 'main=planted'],
  ['run', 'planted', '--image=planted'],
];

/** The victim's pod under the names that somebody might guess, as seen by who may not know. */
const guess = (words: (name: string) => string[]) => async (here: ClusterScene, who: Who) => {
  const told = async (name: string) => {
    const { text } = await here.kubectl(who, ...namespace, ...words(name));
    return text.replaceAll(name, 'NAME');
  };
  const [there, absent] = [await told(pod), await told('webless')];
  return answer(200, there === absent ? '' : `differs: ${there} | ${absent}`);
};

/** What kubectl can be asked to do with another tenant's running pod. */
export const KUBECTL_ATTEMPTS: ClusterAttempt[] = [
  ...READS.map((words): ClusterAttempt => {
    const cut = words.includes('--') ? words.indexOf('--') : words.length;
    const args = [...words.slice(0, cut), ...namespace, ...words.slice(cut)];
    const control = { by: ['alice' as const], expect: showsCanary };
    return { name: words.join(' '), attack: kubectl(...args), expect: isForbidden, control };
  }),
  ...WRITES.map((words): ClusterAttempt => {
    const control = { by: ['alice' as const], try: kubectl(...words, ...namespace, DRY) };
    const attack = kubectl(...words, ...namespace);
    return { name: words.join(' '), attack, expect: isForbidden, control };
  }),
  ...RAW.map((path): ClusterAttempt => ({
    name: `get --raw ${path}`,
    attack: kubectl('get', '--raw', path),
    expect: isForbidden,
    control: { by: ['alice'], expect: showsCanary },
  })),
  ...VIA_NODE.map((path): ClusterAttempt => ({
    name: `get --raw nodes/proxy/${path}`,
    attack: ({ nodeName, kubectl: say }, who) =>
      say(who, 'get', '--raw', `/api/v1/nodes/${nodeName}/proxy/${path}`),
    expect: isForbidden,
    control: { by: ['operator'], expect: showsCanary },
  })),
  ...[`${POD.replace(TARGET.namespace, BASE.namespace)}/log`, 'pods/UID', 'pods/UID/log'].map(
    (path): ClusterAttempt => ({
      name: `get --raw ${path} in the attacker's own namespace`,
      attack: async ({ target, kubectl: say }, who) => {
        const below = `/api/v1/namespaces/${BASE.namespace}/${path}`;
        const raw = (path.startsWith('/') ? path : below).replace('UID', target.metadata.uid ?? '');
        return say(who, 'get', '--raw', raw);
      },
      expect: ({ status, text }) =>
        status === 403 && text.includes('(NotFound)') ? undefined : `${status} ${text}`,
      control: { by: ['alice'], try: kubectl('get', '--raw', `${POD}/log`), expect: showsCanary },
    }),
  ),
  ...[
    (name: string) => ['logs', name],
    (name: string) => ['get', 'pod', name],
    (name: string) => ['exec', name, '--', 'true'],
    (name: string) => ['delete', 'pod', name, '--dry-run=server'],
  ].map((words): ClusterAttempt => ({
    name: `whether a name is taken, by ${words('NAME').join(' ')}`,
    attack: guess(words),
    expect: isSame,
    control: { by: ['alice'], expect: differs },
  })),
  {
    name: 'port-forward',
    attack: forwarded,
    expect: isForbidden,
    control: { by: ['alice'], expect: showsCanary },
  },
  {
    name: 'cp from it',
    attack: copied,
    expect: isForbidden,
    control: { by: ['alice'], expect: showsCanary },
  },
  {
    name: 'cp into it',
    attack: ({ cluster, kubectl: say }, who) =>
      say(who, 'cp', join(cluster.dataDir, 'config.json'), 'acme/web:/tmp/copied'),
    expect: isForbidden,
    control: { by: ['alice'] },
  },
  {
    name: 'debug',
    attack: ({ image, kubectl: say }, who) =>
      say(who, 'debug', pod, ...namespace, '--image', image),
    expect: isForbidden,
    // Nobody gets an ephemeral container; who may see the pod is told so.
    control: {
      by: ['operator'],
      expect: ({ text }) =>
        text.includes('ephemeral containers are disabled') ? undefined : text.slice(0, 300),
    },
  },
  {
    name: 'what it used',
    attack: kubectl('get', '--raw', '/apis/hypernetes.io/v1/tenants/acme/usage'),
    expect: isForbidden,
    control: { by: ['alice'] },
  },
  {
    name: 'all pods of everybody',
    attack: kubectl('get', 'pods', '-A', '-o', 'yaml'),
    by: ['bob'],
    expect: hides('acme'),
    control: { by: ['alice'], expect: showsCanary },
  },
];

async function forwarded({ kubectlPath, kubeconfig }: ClusterScene, who: Who): Promise<Answer> {
  const target = [`pod/${pod}`, SERVED.port, namespace] as const;
  try {
    await using forward = await startForward(kubectlPath, kubeconfig(who), ...target);
    const served = await fetch(`http://127.0.0.1:${forward.port}/`);
    return answer(served.status, await served.text());
  } catch (error) {
    return answer(403, String(error));
  }
}

async function copied({ cluster, kubectl: say }: ClusterScene, who: Who): Promise<Answer> {
  const file = join(cluster.dataDir, 'copied');
  const { status, text } = await say(who, 'cp', `acme/web:${SERVED.file}`, file);
  const content = await readFile(file, 'utf8').catch(() => '');
  await rm(file, { force: true });
  return answer(status, text + content);
}
