import { readFile } from 'node:fs/promises';
import { request } from 'node:http';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { describeError } from '../../../src/base/log.ts';
import { EVENTS, PODS } from '../../../src/client/resources.ts';
import type { TestCluster } from './cluster.ts';

/*
 * What is needed to find out why a test with a cluster failed, as the cluster is at that moment:
 * what the API says of its pods, what hyperd says of them, and how the components' logs end.
 */
const COMPONENTS = ['supervisor', 'server', 'kubelet', 'hyperd'];
const LOG_LINES = 40;
const LINE_CHARS_MAX = 400;
const EVENTS_MAX = 40;
/** Parts of a component that hangs are not waited for. */
const TIMEOUT_MS = 10_000;

export async function reportCluster(cluster: TestCluster): Promise<void> {
  await section('pods', () => pods(cluster));
  await section('events', () => events(cluster));
  await section('hyperd', () => hyperdPods(cluster));
  await section('components', async () => stringify((await cluster.status())?.components));
  for (const name of COMPONENTS) await section(`log of ${name}`, () => logEnd(cluster, name));
}

async function section(title: string, read: () => Promise<string>): Promise<void> {
  const text = await read().catch((error: unknown) => `cannot be read: ${describeError(error)}`);
  console.log(`--- ${title}\n${text.trimEnd()}`);
}

async function pods({ client }: TestCluster): Promise<string> {
  const { items } = await client.listAll(PODS, { signal: AbortSignal.timeout(TIMEOUT_MS) });
  const shown = items.map(({ metadata, status }) => {
    const { namespace, name, uid, resourceVersion, annotations, deletionTimestamp } = metadata;
    const about = { namespace, name, uid, resourceVersion, deletionTimestamp, annotations };
    return { metadata: about, status };
  });
  return stringify(shown);
}

async function events({ client }: TestCluster): Promise<string> {
  const { items } = await client.listAll(EVENTS, { signal: AbortSignal.timeout(TIMEOUT_MS) });
  const lines = items.map((each) => {
    const event = each as unknown as Record<'lastTimestamp' | 'reason' | 'message', string> & {
      involvedObject: { name: string };
    };
    const { lastTimestamp, reason, message, involvedObject } = event;
    return cut(`${lastTimestamp} ${involvedObject.name} ${reason} ${message}`);
  });
  return lines.slice(-EVENTS_MAX).join('\n');
}

/** Without what the pods were asked to be. */
async function hyperdPods({ dataDir }: TestCluster): Promise<string> {
  const text = await new Promise<string>((resolve, reject) => {
    const socketPath = join(dataDir, 'run/hyperd.sock');
    const signal = AbortSignal.timeout(TIMEOUT_MS);
    const outgoing = request({ socketPath, path: '/v1/pods', signal }, async (response) => {
      const parts: Buffer[] = [];
      for await (const part of response) parts.push(part as Buffer);
      resolve(Buffer.concat(parts).toString('utf8'));
    });
    outgoing.on('error', reject);
    outgoing.end();
  });
  const states = JSON.parse(text) as Record<string, unknown>[];
  return stringify(states.map((state) => ({ ...state, spec: undefined })));
}

async function logEnd({ dataDir }: TestCluster, name: string): Promise<string> {
  const text = await readFile(join(dataDir, 'log', `${name}.log`), 'utf8');
  return text.trimEnd().split('\n').slice(-LOG_LINES).map(cut).join('\n');
}

function cut(line: string): string {
  return line.length <= LINE_CHARS_MAX ? line : `${line.slice(0, LINE_CHARS_MAX)}…`;
}
