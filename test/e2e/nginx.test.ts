import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import type { Deployment, Pod } from '../../src/api/types.generated.ts';
import { DEPLOYMENTS, PODS } from '../../src/client/resources.ts';
import { pushImage } from '../../src/hyperd/registry/build.ts';
import { buildNginxImage, NGINX_PAGE, NGINX_PORT } from './fixtures/nginx-image.ts';
import { startCluster } from './support/cluster.ts';
import type { TestCluster } from './support/cluster.ts';
import { startDockerRegistry } from './support/docker-registry.ts';
import type { DockerRegistry } from './support/docker-registry.ts';
import { startForward } from './support/forward.ts';
import { findKubectls } from './support/kubectl.ts';
import type { Kubectl } from './support/kubectl.ts';
import { waitFor } from './support/wait.ts';

/**
 * A real server from a real registry: Debian's nginx, pulled from Debian's docker-registry without
 * TLS and with TLS and a password, as Deployments.
 */
let plain: DockerRegistry;
let secure: DockerRegistry;
let cluster: TestCluster;
let kubectl: Kubectl;

before(async () => {
  plain = await startDockerRegistry({ secure: false });
  secure = await startDockerRegistry({ secure: true });
  const image = await buildNginxImage();
  const { credential, caCert, caFile } = secure;
  const tls = { ca: caCert, cert: undefined, key: undefined, insecureSkipVerify: false };
  await pushImage(`${plain.host}/web/nginx:1`, image);
  await pushImage(`${secure.host}/web/nginx:1`, image, { plainHttp: false, credential, tls });
  const registries = {
    mirrors: { [plain.host]: { endpoint: [`http://${plain.host}`] } },
    configs: { [secure.host]: { tls: { ca_file: caFile } } },
  };
  // JSON is YAML.
  cluster = await startCluster([], (dataDir) =>
    writeFile(join(dataDir, 'registries.yaml'), JSON.stringify(registries)),
  );
  const [found] = await findKubectls(cluster.kubeconfig, join(cluster.dataDir, 'kubectl'));
  assert.ok(found, 'a kubectl on the PATH');
  kubectl = found;
  await createPullSecret('good', credential?.password ?? '');
  await createPullSecret('wrong', 'guess');
  await create([
    deployment('plain', 2, `${plain.host}/web/nginx:1`),
    deployment('secure', 1, `${secure.host}/web/nginx:1`, 'good'),
    pod('anonymous', `${secure.host}/web/nginx:1`),
    pod('wrong', `${secure.host}/web/nginx:1`, 'wrong'),
    pod('unknown', `${plain.host}/web/nginx:2`),
  ]);
});
after(async () => {
  await cluster?.[Symbol.asyncDispose]();
  await plain?.[Symbol.asyncDispose]();
  await secure?.[Symbol.asyncDispose]();
});

async function createPullSecret(name: string, password: string): Promise<void> {
  await kubectl.ok([
    ...['create', 'secret', 'docker-registry', name, `--docker-server=${secure.host}`],
    ...['--docker-username=test', `--docker-password=${password}`],
  ]);
  const type = await kubectl.ok(['get', 'secret', name, '-o', 'jsonpath={.type}']);
  assert.equal(type, 'kubernetes.io/dockerconfigjson');
}

const create = (items: object[]) =>
  kubectl.ok(['create', '--validate=false', '-f', '-'], {
    input: JSON.stringify({ apiVersion: 'v1', kind: 'List', items }),
  });

function podSpec(image: string, pullSecret?: string): Pod['spec'] {
  return {
    ...(pullSecret ? { imagePullSecrets: [{ name: pullSecret }] } : {}),
    terminationGracePeriodSeconds: 5,
    containers: [
      {
        name: 'nginx',
        image,
        ports: [{ containerPort: NGINX_PORT }],
        readinessProbe: { httpGet: { path: '/healthz', port: NGINX_PORT }, periodSeconds: 1 },
        resources: { requests: { memory: '64Mi' }, limits: { memory: '64Mi' } },
      },
    ],
  };
}

function pod(name: string, image: string, pullSecret?: string): Pod {
  const metadata = { name, namespace: 'default' };
  return { apiVersion: 'v1', kind: 'Pod', metadata, spec: podSpec(image, pullSecret) };
}

function deployment(name: string, replicas: number, image: string, pullSecret?: string) {
  const labels = { app: name };
  const spec = podSpec(image, pullSecret);
  return {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name, namespace: 'default' },
    spec: { replicas, selector: { matchLabels: labels }, template: { metadata: { labels }, spec } },
  };
}

async function waitForReplicas(name: string, count: number): Promise<void> {
  const done = (object: Deployment | undefined) =>
    object?.status?.observedGeneration === object?.metadata?.generation &&
    (object?.status?.replicas ?? 0) === count &&
    (object?.status?.readyReplicas ?? 0) === count;
  await waitFor(cluster.client, DEPLOYMENTS, { namespace: 'default', name }, done);
}

/** The message of a pod's only container while it waits for one of `reasons`. */
async function waitingMessage(name: string): Promise<string> {
  const stateOf = (object?: Pod) => object?.status?.containerStatuses?.[0]?.state?.waiting;
  const key = { namespace: 'default', name };
  const found = await waitFor(cluster.client, PODS, key, (object) =>
    /^(ErrImagePull|ImagePullBackOff)$/.test(stateOf(object)?.reason ?? ''),
  );
  return stateOf(found)?.message ?? '';
}

test('an image that may not be had says which registry refused, and why', async () => {
  const named = (what: string) => new RegExp(`${secure.host}/web/nginx:1.*${what}`, 's');
  assert.match(await waitingMessage('anonymous'), named('unauthorized'));
  assert.match(await waitingMessage('wrong'), named('unauthorized'));
  assert.match(
    await waitingMessage('unknown'),
    new RegExp(`${plain.host}/web/nginx:2.*not found`, 's'),
  );
  const selector = 'involvedObject.name=wrong';
  const events = await kubectl.ok(['get', 'events', '--field-selector', selector]);
  assert.match(events, /Warning\s+Failed\s+pod\/wrong\s+Failed to pull image .*unauthorized/);
  assert.doesNotMatch(events, /guess/);
  await kubectl.ok(['delete', 'pod', 'anonymous', 'wrong', 'unknown', '--timeout=60s']);
});

test('a Deployment from a plain registry becomes ready by its probe', async () => {
  await waitForReplicas('plain', 2);
  const line = await kubectl.ok(['get', 'deployment', 'plain', '--no-headers']);
  assert.match(line, /^plain\s+2\/2\s+2\s+2\s/);
});

test('a Deployment from a registry with TLS and a password becomes ready', async () => {
  await waitForReplicas('secure', 1);
});

test('its page comes through port-forward byte for byte, and the log shows it', async () => {
  for (const name of ['plain', 'secure']) {
    const { path } = kubectl;
    const target = `deployment/${name}`;
    await using forward = await startForward(path, cluster.kubeconfig, target, NGINX_PORT);
    const base = `http://127.0.0.1:${forward.port}`;
    const page = await fetch(`${base}/`, { headers: { 'user-agent': `from-${name}` } });
    assert.equal(page.status, 200);
    assert.match(page.headers.get('server') ?? '', /^nginx\//);
    assert.deepEqual(Buffer.from(await page.arrayBuffer()), Buffer.from(NGINX_PAGE));
    const missing = await fetch(`${base}/missing`);
    assert.equal(missing.status, 404);
    await missing.arrayBuffer();
  }
  // Which of the two pods was asked is kubectl's choice.
  const log = await kubectl.ok(['logs', '-l', 'app=plain', '--tail=-1']);
  assert.match(log, /"GET \/ HTTP\/1\.1" 200 \d+ "-" "from-plain"/);
  assert.match(log, /"GET \/missing HTTP\/1\.1" 404 /);
  const own = await kubectl.ok(['logs', 'deployment/secure']);
  assert.match(own, /"GET \/ HTTP\/1\.1" 200 \d+ "-" "from-secure"/);
});

test('scaling down ends one pod, deleting ends all', async () => {
  await kubectl.ok(['scale', 'deployment/plain', '--replicas=1']);
  await waitForReplicas('plain', 1);
  await kubectl.ok(['delete', 'deployment', 'plain', 'secure', '--timeout=60s']);
  await kubectl.ok([
    'wait',
    '--for=delete',
    'pod',
    '-l',
    'app in (plain, secure)',
    '--timeout=60s',
  ]);
  assert.equal(await kubectl.ok(['get', 'pods', '-o', 'name']), '');
});
