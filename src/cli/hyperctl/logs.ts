import type { HyperdClient } from '../../client/hyperd.ts';
import { drained } from '../../api/hyperstream.ts';
import { systemClock } from '../../base/clock.ts';
import { timestamp } from '../../kubelet/server/log-format.ts';
import { parseDuration } from '../duration.ts';
import { UsageError } from '../errors.ts';
import { findContainer, findPod } from './names.ts';

export interface LogsOptions {
  container?: string;
  follow?: boolean;
  tail?: string;
  since?: string;
  timestamps?: boolean;
}

/** Prints what a container has written, its errors on the standard error. */
export async function logs(
  client: HyperdClient,
  name: string,
  options: LogsOptions,
): Promise<void> {
  const pod = await findPod(client, name);
  const containerId = findContainer(pod, options.container);
  const { follow = false, tail = 'all', since, timestamps = false } = options;
  if (tail !== 'all' && !/^\d{1,9}$/.test(tail)) {
    throw new UsageError(`Cannot read --tail "${tail}": write it as a number of lines, or "all".`);
  }
  const query = {
    follow,
    ...(tail === 'all' ? {} : { tailLines: Number(tail) }),
    ...(since === undefined ? {} : { sinceMs: sinceMs(since) }),
  };
  const over = new AbortController();
  const records = client.logs(pod.id, containerId, query, over.signal);
  const isOpen = { 1: false, 2: false };
  for await (const { stream, partial, timeNs, bytes } of records) {
    const prefix = timestamps && !isOpen[stream] ? `${timestamp(timeNs)} ` : '';
    isOpen[stream] = partial;
    const output = stream === 2 ? process.stderr : process.stdout;
    if (!output.write(Buffer.concat([Buffer.from(prefix), bytes]))) await drained(output);
  }
}

/** A time, or how long ago it was. */
function sinceMs(text: string): number {
  if (/^\d+[smhd]$/.test(text)) return systemClock.nowMs() - parseDuration(text, '--since');
  const ms = Date.parse(text);
  if (Number.isFinite(ms)) return ms;
  throw new UsageError(`Cannot read --since "${text}": write it as 10m or 2026-01-31T12:00:00Z.`);
}
