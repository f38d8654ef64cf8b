import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { HyperdInfo, ImageStatus } from '../../api/hyperd.ts';
import { parsePodFile } from './pod-file.ts';
import { podRequest } from './pod-spec.ts';

const parse = (spec: string, head = 'apiVersion: v1\nkind: Pod\nmetadata: {name: web}\n') =>
  parsePodFile(`${head}spec:\n${spec}`, 'web.yaml');

const CONTAINER = '  containers: [{name: main, image: busybox';

test('a pod file becomes what hyperd is told, as the kubelet would tell it', async () => {
  const { pod, volumes, ports } = await parse(`  hostname: host
  containers:
    - name: main
      image: busybox
      command: [echo, "$(WHO)"]
      env: [{name: WHO, value: me}]
      ports: [{containerPort: 80, hostPort: 8080, hostIP: 127.0.0.1}, {containerPort: 81}]
      resources: {limits: {memory: 64Mi, cpu: 500m}}
      securityContext: {runAsUser: 7, capabilities: {drop: [ALL]}}
      volumeMounts: [{name: tmp, mountPath: /tmp}]
  volumes: [{name: tmp, emptyDir: {medium: Memory, sizeLimit: 3Mi}}]
`);
  const image = {
    id: `sha256:${'ab'.repeat(32)}`,
    config: { entrypoint: [], command: [], env: [] },
  };
  const info = {
    machine: { cpuCount: 2, memoryBytes: 1e9 },
    overhead: { memoryMib: 32, cpuMillis: 50 },
    defaults: { network: null, dns: { nameservers: ['192.0.2.1'], searches: [], options: [] } },
  } as unknown as HyperdInfo;
  const images = new Map([['main', image as unknown as ImageStatus]]);
  const common = { pod, volumes, ports, images, info };
  const request = await podRequest({ ...common, whenDone: 'stop', start: true });
  const { spec, containers } = request;
  assert.equal(spec.id, 'web');
  assert.equal(spec.hostname, 'host');
  assert.equal(spec.memoryMib, 64 + 64);
  assert.deepEqual(spec.ports, [{ hostAddress: '127.0.0.1', hostPort: 8080, guestPort: 80 }]);
  assert.deepEqual(spec.volumes, [{ name: 'tmp', type: 'memory', sizeLimitMib: 3 }]);
  assert.deepEqual(spec.dns.nameservers, ['192.0.2.1']);
  assert.deepEqual(spec.labels, {}, 'it is not taken for one of Kubernetes');
  const [main] = containers;
  assert.deepEqual(main?.process.argv, ['echo', 'me']);
  assert.equal(main?.process.user, '7');
  assert.deepEqual(main?.process.security.capabilities, []);
  assert.ok(main?.process.env.every((each) => !each.startsWith('KUBERNETES_')));
  assert.equal(main?.id, 'main');
});

test('what a pod without a cluster cannot have is refused by its name', async () => {
  const cases: [spec: string, message: RegExp][] = [
    [`${CONTAINER}}]\n  nodeName: x`, /spec\.nodeName is not supported without a cluster/],
    [`${CONTAINER}}]\n  initContainers: []`, /spec\.initContainers is not supported/],
    [`${CONTAINER}}]\n  restartPolicy: Always`, /spec\.restartPolicy is not Never/],
    [`${CONTAINER}, livenessProbe: {}}]`, /spec\.containers\[\]\.livenessProbe is not supported/],
    [`${CONTAINER}, env: [{name: A, valueFrom: {}}]}]`, /env\[\]\.valueFrom is not supported/],
    [`${CONTAINER}}]\n  volumes: [{name: v, hostPath: {path: /}}]`, /hostPath is not supported/],
    [`${CONTAINER}, colour: red}]`, /colour is not supported/],
    [`${CONTAINER}, image: other}]`, /duplicate field .*image/],
    [`${CONTAINER}, tty: "yes"}]`, /tty/],
    ['  containers: [{image: x}]', /spec\.containers\[0\]\.name: Required value/],
    ['  containers: []', /spec\.containers: Required value/],
    [
      `${CONTAINER}, ports: [{containerPort: 53, hostPort: 53, protocol: UDP}]}]`,
      /Cannot map port 53: only TCP is mapped/,
    ],
  ];
  for (const [spec, message] of cases) await assert.rejects(parse(spec), message, spec);
  await assert.rejects(parse(`${CONTAINER}}]`, 'apiVersion: v1\nkind: Job\n'), /it is not a Pod/);
  await assert.rejects(parsePodFile('{ half', 'x.json'), /Cannot read x\.json/);
});
