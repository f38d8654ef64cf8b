import assert from 'node:assert/strict';
import { once } from 'node:events';
import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { request } from 'node:http';
import { createServer } from 'node:net';
import type { AddressInfo, Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Duplex } from 'node:stream';
import { text } from 'node:stream/consumers';
import { after, before, test } from 'node:test';
import { connect as connectTls } from 'node:tls';
import type { TLSSocket } from 'node:tls';
import type { Pod } from '../../src/api/types.generated.ts';
import { systemClock } from '../../src/base/clock.ts';
import { run, start } from '../../src/base/exec.ts';
import { pushDemoImage } from '../../src/cli/demo/demo-image.ts';
import { NODES, PODS } from '../../src/client/resources.ts';
import { readNodeDns } from '../../src/kubelet/resolv-conf.ts';
import { startCluster } from './support/cluster.ts';
import type { TestCluster } from './support/cluster.ts';
import { createHost } from './support/host.ts';
import type { TestHost } from './support/host.ts';
import { findKubectls } from './support/kubectl.ts';
import type { Kubectl } from './support/kubectl.ts';
import { waitFor } from './support/wait.ts';

/**
 * What pods reach and what they do not, tried from inside real ones. "Outside" is a machine (a
 * network namespace) at a cable of this one, with a web server that says who asks.
 */
const WEB_PORT = 8080;
/** A connection that is dropped is told from one that is slow by waiting. */
const REFUSED_WAIT_SECONDS = 3;
/** For what has to come: on a busy machine an emulated guest takes its time. */
const CONNECT_WAIT_SECONDS = 45;
const ANSWER_TIMEOUT_MS = CONNECT_WAIT_SECONDS * 1000;

let outside: TestHost;
let cluster: TestCluster;
let kubectl: Kubectl;
let webServer: AsyncDisposable | undefined;
let pages: string;
/** A service of the host that is open to everybody but pods. */
let hostService: Server;
let hostPort: number;
const pods = new Map<string, Pod>();

before(async () => {
  outside = await createHost(2);
  // Where the way out is not the default route, forwarding is for the operator to turn on.
  await writeFile(`/proc/sys/net/ipv4/conf/${outside.device}/forwarding`, '1');
  pages = await mkdtemp(join(tmpdir(), 'hn-pages-'));
  await servePages(pages);
  hostService = createServer((socket) => socket.end('host\n')).listen(0, '0.0.0.0');
  await once(hostService, 'listening');
  hostPort = (hostService.address() as AddressInfo).port;
  cluster = await startCluster(['--address', outside.peer]);
  const [found] = await findKubectls(cluster.kubeconfig, join(cluster.dataDir, 'kubectl'));
  assert.ok(found, 'a kubectl on the PATH');
  kubectl = found;
  const image = await pushDemoImage(cluster.registryPort);
  const names = ['left', 'right'];
  for (const name of names) await cluster.client.create(PODS, podOf(name, image));
  for (const name of names) {
    const key = { namespace: 'default', name };
    const pod = await waitFor(cluster.client, PODS, key, (each) => !!each && isReady(each));
    pods.set(name, pod ?? assert.fail());
  }
});
after(async () => {
  await cluster?.[Symbol.asyncDispose]();
  hostService?.close();
  await webServer?.[Symbol.asyncDispose]();
  await outside?.[Symbol.asyncDispose]();
  await rm(pages, { recursive: true, force: true });
});

/** Resolves when the server answers. */
async function servePages(directory: string): Promise<void> {
  const script = join(directory, 'cgi-bin/who');
  await mkdir(join(directory, 'cgi-bin'));
  await writeFile(script, WHO);
  await chmod(script, 0o755);
  const serve = ['busybox', 'httpd', '-f', '-p', `${WEB_PORT}`, '-h', directory];
  const child = start('nsenter', [`--net=/run/netns/${outside.namespace}`, ...serve], {});
  const exited = once(child, 'exit');
  webServer = {
    async [Symbol.asyncDispose]() {
      child.kill('SIGKILL');
      await exited;
    },
  };
  const answers = () => fetch(`http://${outside.address}:${WEB_PORT}/`).catch(() => undefined);
  const deadlineMs = systemClock.monotonicMs() + ANSWER_TIMEOUT_MS;
  while (!(await answers())) {
    assert.ok(systemClock.monotonicMs() < deadlineMs, 'the web server does not answer');
    await systemClock.sleep(50);
  }
}

const WHO = '#!/bin/sh\necho "Content-type: text/plain"; echo; echo "$REMOTE_ADDR"\n';

function podOf(name: string, image: string): Pod {
  const script = [
    'mkdir -p /www/cgi-bin; printf "$WHO" > /www/cgi-bin/who; chmod 755 /www/cgi-bin/who',
    `exec httpd -f -p ${WEB_PORT} -h /www`,
  ].join('; ');
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace: 'default' },
    spec: {
      terminationGracePeriodSeconds: 0,
      ...(name === 'right' ? { dnsPolicy: 'None', dnsConfig: DNS } : {}),
      containers: [
        {
          ...{ name: 'main', image, command: ['sh', '-c', script] },
          env: [{ name: 'WHO', value: WHO.replaceAll('\n', '\\n') }],
          readinessProbe: { tcpSocket: { port: WEB_PORT }, periodSeconds: 1 },
          // For taking on an address that is another's.
          securityContext: { capabilities: { add: ['NET_ADMIN'] } },
        },
      ],
    },
  };
}

const DNS = {
  nameservers: ['192.0.2.53'],
  searches: ['example.org'],
  options: [{ name: 'ndots', value: '2' }],
};

const isReady = (pod: Pod) =>
  pod.status?.conditions?.some(({ type, status }) => type === 'Ready' && status === 'True') ??
  false;
const addressOf = (name: string) => pods.get(name)?.status?.podIP ?? '';

const inPod = (name: string, script: string) =>
  kubectl(['exec', name, '--', 'sh', '-c', script], { timeoutMs: 60_000 });

async function output(name: string, script: string): Promise<string> {
  const { stdout, stderr, exitCode } = await inPod(name, script);
  assert.equal(exitCode, 0, `${script}: ${stderr}`);
  return stdout;
}

/** The address that asks, as the web server sees it. */
async function seenAs(name: string, address: string): Promise<string> {
  const url = `http://${address}:${WEB_PORT}/cgi-bin/who`;
  const answer = await output(name, `timeout ${CONNECT_WAIT_SECONDS} wget -q -O - ${url}`);
  return /^\[?(?:::ffff:)?([0-9.]+)\]?\n$/.exec(answer)?.[1] ?? answer;
}

/** Whether a TCP connection opens. */
async function connects(name: string, address: string, port: number): Promise<boolean> {
  const nc = `nc -w ${REFUSED_WAIT_SECONDS} ${address} ${port} < /dev/null > /dev/null`;
  return (await inPod(name, nc)).exitCode === 0;
}

/** Whether an echo comes back, within the time, that was sent under this address. */
async function echoes(name: string, source: string, address: string, waitSeconds: number) {
  const ping = `ping -q -c 2 -W ${waitSeconds} -I ${source} ${address}`;
  return (await inPod(name, ping)).exitCode === 0;
}

test('pods have addresses of the node, and reach each other under them', async () => {
  const { items } = await cluster.client.list(NODES);
  const range = items[0]?.spec?.podCIDR ?? '';
  for (const name of pods.keys()) {
    assert.ok(addressOf(name).startsWith(range.replace(/0\/24$/, '')), `${name} in ${range}`);
    const inside = await output(name, 'ip -4 -o addr show dev eth0');
    assert.match(inside, new RegExp(` ${addressOf(name).replaceAll('.', '\\.')}/24 `));
  }
  assert.notEqual(addressOf('left'), addressOf('right'));
  assert.equal(await seenAs('left', addressOf('right')), addressOf('left'));
  assert.equal(await seenAs('right', addressOf('left')), addressOf('right'));
});

test('pods reach the outside, which sees the address of the node', async () => {
  assert.equal(await seenAs('left', outside.address), outside.peer);
});

test('the outside does not reach pods', async () => {
  const { exitCode } = await outside.run('busybox', [
    ...['nc', '-w', String(REFUSED_WAIT_SECONDS), addressOf('left'), String(WEB_PORT)],
  ]);
  assert.notEqual(exitCode, 0);
});

test('pods reach neither services of the host nor the gateway', async () => {
  const { exitCode, stdout } = await outside.run('busybox', [
    ...['nc', '-w', String(CONNECT_WAIT_SECONDS), outside.peer, String(hostPort)],
  ]);
  assert.equal(stdout, 'host\n', `the service is open to others (${exitCode})`);
  const route = await output('left', 'ip route show default');
  const [, gateway = ''] = /via (\S+)/.exec(route) ?? [];
  assert.equal(gateway, addressOf('left').replace(/\.\d+$/, '.1'));
  const host = JSON.parse(await run('ip', ['-json', '-4', 'addr', 'show'])) as {
    addr_info: { local: string }[];
  }[];
  const own = host.flatMap(({ addr_info }) => addr_info.map(({ local }) => local));
  const addresses = [...own.filter((address) => !address.startsWith('127.')), gateway];
  assert.ok(addresses.includes(outside.peer));
  const tries = [...new Set(addresses)].map(async (address) => {
    assert.equal(await connects('left', address, hostPort), false, `${address}:${hostPort}`);
  });
  await Promise.all(tries);
  const { registryPort } = cluster;
  assert.equal(await connects('left', outside.peer, registryPort), false, 'the registry');
});

/** Posts JSON to the API server over a connection that is opened inside the pod. */
async function postThroughPod(name: string, path: string, body: object): Promise<unknown> {
  const secrets = '/var/run/secrets/kubernetes.io/serviceaccount';
  const token = await output(name, `cat ${secrets}/token`);
  const ca = await output(name, `cat ${secrets}/ca.crt`);
  const host = (await output(name, 'echo $KUBERNETES_SERVICE_HOST')).trim();
  const nc = 'exec nc $KUBERNETES_SERVICE_HOST $KUBERNETES_SERVICE_PORT';
  const exec = ['--kubeconfig', cluster.kubeconfig, 'exec', '-i', name, '--', 'sh', '-c', nc];
  const child = start(kubectl.path, exec, { stdio: ['pipe', 'pipe', 'pipe'] });
  const exited = once(child, 'close') as Promise<[number | null, string | null]>;
  assert.ok(child.stdin && child.stdout && child.stderr);
  const stderr = text(child.stderr);
  // The types do not know this form.
  const socket = Duplex.from({ writable: child.stdin, readable: child.stdout } as never);
  socket.on('error', () => {});
  try {
    return await post(connectTls({ socket, host, ca }), token, path, body);
  } catch (error) {
    const ending = systemClock.after(LAST_WORDS_MS, () => child.kill('SIGKILL'));
    const how = (await exited).map(String).join();
    ending.cancel();
    const message = `${String(error)}; kubectl ended with ${how} and said "${await stderr}"`;
    throw new Error(message, { cause: error });
  } finally {
    child.kill('SIGKILL');
    await exited;
  }
}

/** A kubectl that ends is given the time to say why. */
const LAST_WORDS_MS = 2_000;

/**
 * The server ends the connection behind its answer, and with it the program that carries it. The
 * farewell of TLS then finds nobody: what fails after the answer has begun is not a failure.
 */
function post(socket: TLSSocket, token: string, path: string, body: object): Promise<unknown> {
  const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' };
  const sent = request({ method: 'POST', path, headers, createConnection: () => socket });
  sent.setTimeout(ANSWER_TIMEOUT_MS, () => sent.destroy(new Error('no answer')));
  return new Promise((resolve, reject) => {
    let isAnswered = false;
    sent.on('response', (response) => {
      isAnswered = true;
      void text(response).then(JSON.parse).then(resolve, reject);
    });
    // An answer that is cut fails where it is read.
    sent.on('error', (error) => {
      if (!isAnswered) reject(error);
    });
    sent.end(JSON.stringify(body));
  });
}

test('pods reach the API server as their service account', async () => {
  const kind = { apiVersion: 'authentication.k8s.io/v1', kind: 'SelfSubjectReview' };
  const path = '/apis/authentication.k8s.io/v1/selfsubjectreviews';
  const answer = (await postThroughPod('left', path, kind)) as {
    status: { userInfo: { username: string; extra: Record<string, string[]> } };
  };
  const { username, extra } = answer.status.userInfo;
  assert.equal(username, 'system:serviceaccount:default:default');
  assert.deepEqual(extra['authentication.kubernetes.io/pod-name'], ['left']);
});

test('a pod cannot speak under an address that is not its own', async () => {
  const other = addressOf('left').replace(/\.\d+$/, '.200');
  await output('left', `ip addr add ${other}/24 dev eth0`);
  for (const target of [addressOf('right'), outside.address]) {
    const own = await echoes('left', addressOf('left'), target, CONNECT_WAIT_SECONDS);
    assert.equal(own, true, target);
    const forged = await echoes('left', other, target, REFUSED_WAIT_SECONDS);
    assert.equal(forged, false, `${target} from ${other}`);
  }
});

test('pods have the MTU of the way out, and the resolvers of the node or their own', async () => {
  const routes = JSON.parse(await run('ip', ['-json', '-4', 'route', 'show', 'default'])) as {
    dev: string;
  }[];
  const links = JSON.parse(await run('ip', ['-json', 'link', 'show'])) as {
    ifname: string;
    mtu: number;
  }[];
  const uplinks = links.filter(({ ifname }) => routes.some(({ dev }) => dev === ifname));
  const mtu = Math.min(1500, ...uplinks.map((link) => link.mtu));
  assert.equal(await output('left', 'cat /sys/class/net/eth0/mtu'), `${mtu}\n`);

  const dns = await readNodeDns();
  const expected = [
    ...dns.nameservers.map((address) => `nameserver ${address}`),
    ...(dns.searches.length > 0 ? [`search ${dns.searches.join(' ')}`] : []),
    ...(dns.options.length > 0 ? [`options ${dns.options.join(' ')}`] : []),
  ];
  const lines = (text: string) => text.trim().split('\n').filter(Boolean).sort();
  assert.deepEqual(lines(await output('left', 'cat /etc/resolv.conf')), expected.sort());
  assert.deepEqual(lines(await output('right', 'cat /etc/resolv.conf')), [
    'nameserver 192.0.2.53',
    'options ndots:2',
    'search example.org',
  ]);
});
