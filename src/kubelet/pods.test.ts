import assert from 'node:assert/strict';
import { afterEach, test } from 'node:test';
import type { Pod, PodSpec } from '../api/types.generated.ts';
import { createRig } from './testing/rig.ts';
import type { Rig } from './testing/rig.ts';

/** Goal and method as in kubelet.test.ts; here the less common sides of a pod's life. */
let rig: Rig;
afterEach(() => rig.close());

const status = (pod: Pod) => pod.status?.containerStatuses?.[0];
const running = (pod: Pod) => status(pod)?.state?.running !== undefined;
const one = (rest: Partial<PodSpec['containers'][number]>): PodSpec => ({
  containers: [{ name: 'main', image: 'busybox:1', ...rest }],
});

async function start(): Promise<Rig> {
  rig = await createRig();
  rig.hyperd.addImage('busybox:1', { env: ['FROM_IMAGE=1'], workingDir: '/srv' });
  return rig;
}

test('readiness follows the probe, with its thresholds', async () => {
  await start();
  let healthy = false;
  rig.hyperd.setProbe(() => ({ success: healthy, message: 'connection refused' }));
  const readinessProbe = { tcpSocket: { port: 80 }, periodSeconds: 5, failureThreshold: 2 };
  rig.addPod('probed', one({ readinessProbe }));
  const pod = await rig.until('probed', running);
  assert.equal(status(pod)?.ready, false);
  healthy = true;
  await rig.clock.advance(5_000);
  await rig.until('probed', (each) => status(each)?.ready === true);
  healthy = false;
  await rig.clock.advance(5_000);
  await rig.settle();
  assert.equal(status(rig.api.get(rig.path('probed')) as Pod)?.ready, true, 'one failure of two');
  await rig.clock.advance(5_000);
  await rig.until('probed', (each) => status(each)?.ready === false);
  assert.ok((await rig.events('probed')).includes('Unhealthy'));
});

test('a failing liveness probe restarts the container', async () => {
  await start();
  rig.addPod(
    'sick',
    one({ livenessProbe: { exec: { command: ['exit', '1'] }, failureThreshold: 1 } }),
  );
  const pod = await rig.until('sick', (each) => (status(each)?.restartCount ?? 0) > 0);
  assert.equal(status(pod)?.lastState?.terminated?.exitCode, 143);
  const events = await rig.events('sick');
  assert.ok(events.includes('Unhealthy') && events.includes('Killing'), events.join());
});

test('a container with a startup probe is not started before it passes', async () => {
  await start();
  let started = false;
  rig.hyperd.setProbe((_pod, port) => ({ success: port !== 81 || started, message: 'no' }));
  rig.addPod(
    'slow',
    one({
      startupProbe: { tcpSocket: { port: 81 }, periodSeconds: 1, failureThreshold: 30 },
      readinessProbe: { tcpSocket: { port: 80 } },
    }),
  );
  const pod = await rig.until('slow', running);
  assert.equal(status(pod)?.started, false);
  started = true;
  await rig.clock.advance(1_000);
  await rig.until('slow', (each) => status(each)?.started === true && status(each)?.ready === true);
});

test('a sidecar starts before the containers and ends after them', async () => {
  await start();
  rig.addPod('side', {
    restartPolicy: 'Never',
    initContainers: [{ name: 'proxy', image: 'busybox:1', restartPolicy: 'Always' }],
    containers: [{ name: 'main', image: 'busybox:1' }],
  });
  await rig.until('side', running);
  const proxy = rig.containerId('side', 'proxy');
  const main = rig.containerId('side', 'main');
  const started = rig.hyperd.requests.filter((each) => each.startsWith('PUT') && /\//.test(each));
  const order = started
    .filter((each) => each.includes('/containers/'))
    .map((each) => each.slice(-64));
  assert.deepEqual(order, [proxy, main]);
  rig.hyperd.exit(main, 0);
  const pod = await rig.until('side', (each) => each.status?.phase === 'Succeeded');
  await rig.waitUntil(() => {
    const state = rig.hyperd.pods
      .get(rig.uid('side'))
      ?.containers.find((each) => each.id === proxy);
    return state?.phase === 'exited';
  });
  assert.equal(status(pod)?.state?.terminated?.exitCode, 0);
});

test('lifecycle hooks run: postStart before ready, preStop before the signal', async () => {
  await start();
  const lifecycle = {
    postStart: { exec: { command: ['print', 'hi'] } },
    preStop: { exec: { command: ['print', 'bye'] } },
  };
  rig.addPod('hooked', one({ lifecycle }));
  await rig.until('hooked', (each) => status(each)?.ready === true);
  const execs = () => rig.hyperd.requests.filter((each) => each.endsWith('/exec')).length;
  assert.equal(execs(), 1);
  rig.api.deletePod(rig.path('hooked'), 30);
  await rig.waitUntil(() => rig.api.get(rig.path('hooked')) === undefined);
  assert.equal(execs(), 2);
  const last = rig.hyperd.requests.filter((each) => /exec$|signal$/.test(each)).slice(-2);
  assert.match(last[0] ?? '', /exec$/);
  assert.match(last[1] ?? '', /signal$/);
});

test('activeDeadlineSeconds ends a pod as Failed', async () => {
  await start();
  rig.addPod('late', { ...one({}), activeDeadlineSeconds: 60 });
  await rig.until('late', running);
  await rig.clock.advance(60_000);
  const pod = await rig.until('late', (each) => status(each)?.state?.terminated !== undefined);
  assert.equal(pod.status?.phase, 'Failed');
  assert.equal(pod.status?.reason, 'DeadlineExceeded');
});

const SIDECAR = {
  ...{ name: 'side', image: 'busybox:1', restartPolicy: 'Always' },
  livenessProbe: { grpc: { port: 1 } },
};

for (const [what, spec, words] of [
  ['host network', { hostNetwork: true }, /hostNetwork/],
  ['hostPath', { volumes: [{ name: 'v', hostPath: { path: '/etc' } }] }, /hostPath/],
  ['gRPC probes of a sidecar', { initContainers: [SIDECAR] }, /gRPC/],
  ['claims', { volumes: [{ name: 'v', persistentVolumeClaim: { claimName: 'c' } }] }, /Claim/],
] as const) {
  test(`${what}: what a VM cannot have is said, and no VM is made`, async () => {
    await start();
    rig.addPod('odd', { ...one({}), ...(spec as Partial<PodSpec>) });
    const condition = (pod: Pod) =>
      pod.status?.conditions?.find((each) => each.type === 'PodReadyToStartContainers');
    const pod = await rig.until('odd', (each) => condition(each)?.reason === 'Unsupported');
    assert.match(condition(pod)?.message ?? '', words);
    assert.equal(pod.status?.phase, 'Pending');
    assert.equal(rig.hyperd.pods.size, 0);
    assert.deepEqual(await rig.events('odd'), ['Pulled', 'FailedCreatePodSandBox'].slice(-1));
  });
}

test('a pod waits, and says so, for a kernel that the node has not', async () => {
  await start();
  const annotations = { 'hypernetes.io/kernel': 'mine' };
  rig.addPod('own', one({}), { annotations });
  const condition = (pod: Pod) =>
    pod.status?.conditions?.find((each) => each.type === 'PodReadyToStartContainers');
  const reason = 'FailedCreatePodSandBox';
  const waiting = await rig.until('own', (each) => condition(each)?.reason === reason);
  assert.match(condition(waiting)?.message ?? '', /Cannot find kernel "mine"/);
  assert.ok((await rig.events('own')).includes(reason));
  rig.hyperd.kernels.add('mine');
  await rig.clock.advance(60_000);
  await rig.until('own', running);
  assert.deepEqual(
    [...rig.hyperd.pods.values()].map(({ spec }) => spec.kernel),
    ['mine'],
  );
});

test('environment, command and mounts come from spec, image and what they refer to', async () => {
  await start();
  rig.api.create('/api/v1/namespaces/default/configmaps/settings', {
    data: { color: 'red', n: '1' },
  });
  const password = Buffer.from('s3cret').toString('base64');
  rig.api.create('/api/v1/namespaces/default/secrets/login', { data: { password } });
  rig.api.create('/api/v1/namespaces/default/services/db', {
    spec: { clusterIP: '10.96.0.7', ports: [{ name: 'sql', port: 5432, protocol: 'TCP' }] },
  });
  await rig.settle();
  rig.addPod('env', {
    ...one({
      command: ['run', '$(GREETING)', '$$(KEPT)', '$(UNKNOWN)'],
      envFrom: [{ prefix: 'CM_', configMapRef: { name: 'settings' } }],
      env: [
        { name: 'WHO', value: 'world' },
        { name: 'GREETING', value: 'hello $(WHO)' },
        { name: 'PASSWORD', valueFrom: { secretKeyRef: { name: 'login', key: 'password' } } },
        { name: 'NONE', valueFrom: { secretKeyRef: { name: 'login', key: 'x', optional: true } } },
        { name: 'NAME', valueFrom: { fieldRef: { fieldPath: 'metadata.name' } } },
        { name: 'IP', valueFrom: { fieldRef: { fieldPath: 'status.podIP' } } },
        {
          name: 'MEM',
          valueFrom: { resourceFieldRef: { resource: 'limits.memory', divisor: '1Mi' } },
        },
      ],
      resources: { limits: { memory: '64Mi', cpu: '250m' } },
      volumeMounts: [{ name: 'files', mountPath: '/etc/files', readOnly: true }],
      securityContext: { runAsUser: 1000, capabilities: { drop: ['ALL'], add: ['NET_ADMIN'] } },
    }),
    volumes: [
      { name: 'files', configMap: { name: 'settings', items: [{ key: 'n', path: 'a/n' }] } },
    ],
  });
  await rig.until('env', running);
  const spec = rig.hyperd.specs.get(rig.containerId('env', 'main'));
  const env = Object.fromEntries((spec?.process.env ?? []).map((each) => each.split('=')));
  assert.deepEqual(spec?.process.argv, ['run', 'hello world', '$(KEPT)', '$(UNKNOWN)']);
  assert.equal(env['GREETING'], 'hello world');
  assert.equal(env['CM_color'], 'red');
  assert.equal(env['PASSWORD'], 's3cret');
  assert.equal('NONE' in env, false);
  assert.equal(env['NAME'], 'env');
  assert.equal(env['IP'], '10.88.0.2');
  assert.equal(env['MEM'], '64');
  assert.equal(env['FROM_IMAGE'], '1');
  assert.equal(env['HOSTNAME'], 'env');
  assert.equal(env['KUBERNETES_SERVICE_HOST'], '192.0.2.10');
  assert.equal(env['DB_SERVICE_PORT_SQL'], '5432');
  assert.equal(env['DB_PORT_5432_TCP'], 'tcp://10.96.0.7:5432');
  assert.equal(spec?.process.workingDir, '/srv');
  assert.equal(spec?.process.user, '1000');
  assert.deepEqual(spec?.process.security.capabilities, ['CAP_NET_ADMIN']);
  assert.deepEqual(spec?.mounts, [
    { volume: 'files', path: '/etc/files', subPath: '', readOnly: true },
  ]);
  const pod = rig.hyperd.pods.get(rig.uid('env'));
  assert.equal(pod?.spec.memoryMib, 64 + 64 + 1);
  assert.equal(pod?.spec.limits.cpuMillis, 250);
  const volume = pod?.spec.volumes[0];
  assert.deepEqual(volume?.type === 'files' && volume.content.files, [
    { path: 'a/n', mode: 0o644, content: Buffer.from('1').toString('base64') },
  ]);
});

test('a private image that is present is only for pods with its credentials', async () => {
  await start();
  rig.hyperd.addImage('registry.test/private:1');
  rig.hyperd.makePrivate('registry.test/private:1', 's3cret');
  const auths = { 'registry.test': { username: 'a', password: 's3cret' } };
  const config = Buffer.from(JSON.stringify({ auths })).toString('base64');
  const secret = { data: { '.dockerconfigjson': config } };
  rig.api.create('/api/v1/namespaces/default/secrets/pull', secret);
  for (const imagePullPolicy of ['IfNotPresent', 'Never']) {
    const spec = one({ image: 'registry.test/private:1', imagePullPolicy });
    const name = imagePullPolicy.toLowerCase();
    rig.addPod(`${name}-thief`, spec);
    rig.addPod(`${name}-owner`, { ...spec, imagePullSecrets: [{ name: 'pull' }] });
    await rig.until(`${name}-owner`, running);
    const thief = await rig.until(`${name}-thief`, (pod) => {
      return /^ErrImage/.test(status(pod)?.state?.waiting?.reason ?? '');
    });
    assert.equal(status(thief)?.containerID, undefined);
  }
});

test('what is missing is named; once it is there the container starts', async () => {
  await start();
  rig.addPod('wants', one({ envFrom: [{ configMapRef: { name: 'later' } }] }));
  const pod = await rig.until(
    'wants',
    (each) => status(each)?.state?.waiting?.reason === 'CreateContainerConfigError',
  );
  assert.equal(status(pod)?.state?.waiting?.message, 'configmap "later" not found');
  rig.api.create('/api/v1/namespaces/default/configmaps/later', { data: {} });
  await rig.clock.advance(10_000);
  await rig.until('wants', running);
});

test('a changed ConfigMap reaches the volume, a token is renewed', async () => {
  await start();
  const path = '/api/v1/namespaces/default/configmaps/live';
  rig.api.create(path, { data: { key: 'old' } });
  const volumes = [
    { name: 'live', configMap: { name: 'live' } },
    {
      name: 'token',
      projected: { sources: [{ serviceAccountToken: { path: 'token', expirationSeconds: 3600 } }] },
    },
  ];
  rig.addPod('live', { ...one({}), volumes });
  await rig.until('live', running);
  rig.api.patch(path, { data: { key: 'new' } });
  await rig.clock.advance(61_000);
  const key = `${rig.uid('live')}/live`;
  await rig.waitUntil(() => rig.hyperd.volumes.has(key));
  const content = rig.hyperd.volumes.get(key);
  assert.equal(content?.version, 2);
  assert.equal(content?.files[0]?.content, Buffer.from('new').toString('base64'));
  assert.equal(rig.hyperd.volumes.has(`${rig.uid('live')}/token`), false);
  for (let minute = 0; minute < 49; minute += 1) {
    await rig.clock.advance(61_000);
    await rig.settle();
  }
  await rig.waitUntil(() => rig.hyperd.volumes.has(`${rig.uid('live')}/token`));
});

test('a container that cannot be started says why', async () => {
  await start();
  rig.addPod('broken', one({ command: ['fail'] }));
  const pod = await rig.until('broken', (each) => status(each)?.restartCount === 1);
  const last = status(pod)?.lastState?.terminated ?? status(pod)?.state?.terminated;
  assert.equal(last?.reason, 'StartError');
  assert.equal(last?.exitCode, 128);
  assert.match(last?.message ?? '', /executable file not found/);
});

test('a pod deleted while its VM boots is gone without a trace', async () => {
  rig = await createRig({ bootMs: 5_000 });
  rig.hyperd.addImage('busybox:1');
  rig.addPod('brief', one({}));
  await rig.waitUntil(() => rig.hyperd.pods.size === 1);
  rig.api.deletePod(rig.path('brief'), 30);
  await rig.settle();
  await rig.clock.advance(5_000);
  await rig.waitUntil(() => rig.api.get(rig.path('brief')) === undefined);
  assert.equal(rig.hyperd.pods.size, 0);
});

test('a pod deleted by force loses its VM at once', async () => {
  await start();
  rig.addPod('forced', one({ command: ['stubborn'] }));
  await rig.until('forced', running);
  rig.api.deletePod(rig.path('forced'), 0);
  await rig.waitUntil(() => rig.hyperd.pods.size === 0);
});

test('restart counts and previous exits survive the loss of all VMs', async () => {
  await start();
  rig.addPod('reboot', one({}));
  await rig.until('reboot', running);
  rig.hyperd.exit(rig.containerId('reboot', 'main'), 5);
  await rig.until('reboot', (each) => status(each)?.restartCount === 1 && running(each));
  const before = rig.hyperd.pods.get(rig.uid('reboot'));
  assert.ok(before);
  await rig.stopKubelet();
  (rig.hyperd.pods as Map<string, unknown>).clear();
  await rig.startKubelet();
  const pod = await rig.until(
    'reboot',
    (each) => status(each)?.restartCount === 2 && running(each),
  );
  assert.equal(status(pod)?.lastState?.terminated?.reason, 'ContainerStatusUnknown');
});

test('a pod goes on while the API server is away', async () => {
  await start();
  rig.addPod('alone', one({}));
  await rig.until('alone', running);
  rig.api.down = true;
  rig.hyperd.exit(rig.containerId('alone', 'main'), 1);
  await rig.waitUntil(() => (rig.hyperd.pods.get(rig.uid('alone'))?.containers.length ?? 0) === 2);
  rig.api.down = false;
  for (let turn = 0; turn < 20; turn += 1) await rig.clock.advance(1_000);
  await rig.until('alone', (each) => status(each)?.restartCount === 1 && running(each));
});

test('the back-off of each of several containers is told once an attempt', async () => {
  await start();
  const crash = (name: string) => ({ name, image: 'busybox:1', command: ['exit', '1'] });
  rig.addPod('pair', { containers: [crash('a'), crash('b')] });
  const isWaiting = (pod: Pod) =>
    (pod.status?.containerStatuses ?? []).filter(
      (each) => each.state?.waiting?.reason === 'CrashLoopBackOff',
    ).length === 2;
  await rig.until('pair', isWaiting);
  for (let turn = 0; turn < 3; turn += 1) {
    rig.api.patch(rig.path('pair'), { metadata: { labels: { turn: String(turn) } } });
    await rig.settle();
  }
  const told = rig.api
    .list('/api/v1/namespaces/default/events')
    .filter((event) => event['reason'] === 'BackOff')
    .map((event) => event['count']);
  assert.deepEqual(told, [1, 1]);
});
