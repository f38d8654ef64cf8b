import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import type { KubeObject } from '../src/api/object.ts';

/** A pod such as a Deployment makes it, and as its kubelet reports it. */
export function benchPod(name: string): KubeObject {
  const time = '2026-01-01T00:00:00Z';
  const condition = (type: string) => ({ type, status: 'True', lastTransitionTime: time });
  const types = ['Initialized', 'Ready', 'ContainersReady', 'PodScheduled'];
  const image = 'registry.example/bench/app:v1';
  const state = { running: { startedAt: time } };
  const resources = { requests: { cpu: '100m', memory: '64Mi' } };
  const env = [
    { name: 'MODE', value: 'bench' },
    { name: 'POD', value: name },
  ];
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: {
      name,
      namespace: 'bench',
      uid: `00000000-0000-4000-8000-0000000${name.slice(-5)}`,
      creationTimestamp: time,
      generation: 1,
      labels: { app: 'bench', tier: 'backend', 'pod-template-hash': '5d4f8c7b9f' },
      ownerReferences: [
        { apiVersion: 'apps/v1', kind: 'ReplicaSet', name: 'bench-5d4f8c7b9f', uid: 'owner' },
      ],
    },
    spec: {
      containers: [
        { name: 'main', image, env, resources, imagePullPolicy: 'IfNotPresent', stdin: false },
      ],
      nodeName: 'node-1',
      restartPolicy: 'Always',
      dnsPolicy: 'ClusterFirst',
      schedulerName: 'default-scheduler',
      serviceAccountName: 'default',
      terminationGracePeriodSeconds: 30,
    },
    status: {
      phase: 'Running',
      hostIP: '192.0.2.1',
      podIP: '10.0.0.1',
      startTime: time,
      conditions: types.map(condition),
      containerStatuses: [{ name: 'main', image, ready: true, restartCount: 0, state }],
    },
  };
}

/** Bytes in use after everything that can be freed has been. */
export function memoryBytes(): number {
  return heapBytes() + process.memoryUsage().external;
}

/** The same without the buffers that lie outside the heap. */
export function heapBytes(): number {
  setFlagsFromString('--expose-gc');
  (runInNewContext('gc') as () => void)();
  return process.memoryUsage().heapUsed;
}
