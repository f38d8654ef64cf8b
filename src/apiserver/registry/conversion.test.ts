import assert from 'node:assert/strict';
import { test } from 'node:test';
import { convert } from './conversion.ts';

const metadata = { name: 'a', namespace: 'b' };

test('convert() carries events between their two groups without loss', () => {
  const event = {
    apiVersion: 'v1',
    kind: 'Event',
    metadata,
    involvedObject: { kind: 'Pod', name: 'p' },
    reason: 'Started',
    message: 'hello',
    source: { component: 'kubelet' },
    count: 3,
    type: 'Normal',
    reportingComponent: 'kubelet',
    reportingInstance: 'node-1',
  };
  const other = convert(event, 'events.k8s.io/v1');
  assert.equal(other.note, 'hello');
  assert.equal(other.deprecatedCount, 3);
  assert.equal(other.apiVersion, 'events.k8s.io/v1');
  assert.deepEqual(convert(other, 'v1'), event);
});

test('convert() keeps what autoscaling/v1 has no fields for in an annotation', () => {
  const v2 = {
    apiVersion: 'autoscaling/v2',
    kind: 'HorizontalPodAutoscaler',
    metadata,
    spec: {
      maxReplicas: 5,
      metrics: [
        {
          type: 'Resource',
          resource: { name: 'cpu', target: { type: 'Utilization', averageUtilization: 80 } },
        },
        { type: 'Pods', pods: { metric: { name: 'rps' } } },
      ],
    },
  };
  const v1 = convert(v2, 'autoscaling/v1');
  assert.equal((v1.spec as Record<string, unknown>).targetCPUUtilizationPercentage, 80);
  assert.deepEqual(convert(v1, 'autoscaling/v2'), v2);
});
