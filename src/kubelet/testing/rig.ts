import assert from 'node:assert/strict';
import type { Pod, PodSpec } from '../../api/types.generated.ts';
import { FakeClock } from '../../base/clock.fake.ts';
import { systemClock } from '../../base/clock.ts';
import { silentLog } from '../../base/log.ts';
import { seededRandom } from '../../base/random.ts';
import { containerId } from '../history.ts';
import { createKubelet } from '../kubelet.ts';
import type { Kubelet, KubeletOptions } from '../kubelet.ts';
import { createFakeApi } from './api.fake.ts';
import type { FakeApi } from './api.fake.ts';
import { startFakeHyperd } from './hyperd.fake.ts';
import type { FakeHyperd } from './hyperd.fake.ts';

/** A kubelet between a fake API and a fake hyperd, and what tests ask of it. */
export interface Rig {
  clock: FakeClock;
  api: FakeApi;
  hyperd: FakeHyperd;
  kubelet: Kubelet;
  addPod(name: string, spec: Omit<PodSpec, 'nodeName'>, metadata?: Pod['metadata']): Pod;
  path(name: string): string;
  uid(name: string): string;
  containerId(pod: string, container: string, attempt?: number): string;
  /** The pod, once it is as wanted. */
  until(name: string, holds: (pod: Pod) => boolean): Promise<Pod>;
  waitUntil(holds: () => boolean): Promise<void>;
  /** Lets everything that is under way come to rest. */
  settle(): Promise<void>;
  /** Reasons of the events about a pod, in order. */
  events(name: string): Promise<string[]>;
  startKubelet(): Promise<void>;
  stopKubelet(): Promise<void>;
  close(): Promise<void>;
}

const NODE = 'node-1';
/** Real time: the machine may be busy, and the fake hyperd answers over a socket. */
const WAIT_LIMIT_MS = 10_000;

export async function createRig(
  options: { bootMs?: number; network?: KubeletOptions['network'] } = {},
): Promise<Rig> {
  const clock = new FakeClock();
  const api = createFakeApi(clock);
  const hyperd = await startFakeHyperd({ clock, ...options });
  let life = new AbortController();
  let ended: Promise<void> = Promise.resolve();
  let kubelet: Kubelet;
  /** Real I/O (the socket to hyperd) needs real turns of the event loop, not time. */
  const turn = () => new Promise((resolve) => setImmediate(resolve));
  const path = (name: string) => `/api/v1/namespaces/default/pods/${name}`;
  const uid = (name: string) => api.get(path(name))?.metadata.uid ?? '';
  const waitUntil = async (holds: () => boolean) => {
    const beganMs = systemClock.monotonicMs();
    while (systemClock.monotonicMs() - beganMs < WAIT_LIMIT_MS) {
      if (holds()) return;
      // Fires what is due now: a first probe, a retry without a delay.
      await clock.advance(0);
    }
    assert.fail('what was waited for did not come');
  };
  const rig: Rig = {
    clock,
    api,
    hyperd,
    get kubelet() {
      return kubelet;
    },
    addPod(name, spec, metadata = {}) {
      const object = { kind: 'Pod', metadata, spec: { ...spec, nodeName: NODE } };
      return api.create(path(name), object) as Pod;
    },
    path,
    uid,
    containerId: (pod, container, attempt = 0) => containerId(uid(pod), container, attempt),
    async until(name, holds) {
      const read = () => api.get(path(name)) as Pod | undefined;
      const wanted = () => {
        const pod = read();
        return pod !== undefined && holds(pod);
      };
      await waitUntil(wanted).catch(() => {
        assert.fail(`pod "${name}" did not get there: ${JSON.stringify(read()?.status, null, 1)}`);
      });
      return read() as Pod;
    },
    waitUntil,
    async settle() {
      for (let turns = 0; turns < 200; turns += 1) await turn();
    },
    async events(name) {
      await rig.settle();
      return api
        .list('/api/v1/namespaces/default/events')
        .filter((event) => (event['involvedObject'] as { name?: string }).name === name)
        .map((event) => String(event['reason']));
    },
    async startKubelet() {
      life = new AbortController();
      kubelet = createKubelet({
        nodeName: NODE,
        hostIp: '192.0.2.1',
        transport: api,
        hyperd: hyperd.socketPath,
        apiServer: { host: '192.0.2.10', port: 6443 },
        network: options.network ?? null,
        clock,
        random: seededRandom(1),
        log: silentLog,
      });
      ended = kubelet.start(life.signal);
      ended.catch(() => {});
      await waitUntil(() => api.get(`/api/v1/nodes/${NODE}`) !== undefined);
    },
    async stopKubelet() {
      life.abort(new Error('test stops the kubelet'));
      await ended;
    },
    async close() {
      await rig.stopKubelet();
      await hyperd.close();
    },
  };
  await rig.startKubelet();
  return rig;
}
