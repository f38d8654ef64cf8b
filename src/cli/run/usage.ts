import type { UserInfo } from '../../api/auth.ts';
import type { ApiServer } from '../../apiserver/server.ts';
import type { UsageMeter } from '../../apiserver/usage/meter.ts';
import { runUsageSampler } from '../../apiserver/usage/sampler.ts';
import type { Clock } from '../../base/clock.ts';
import type { Log } from '../../base/log.ts';
import type { Store } from '../../store/store.ts';

const SELF: UserInfo = {
  ...{ name: 'system:apiserver', uid: '', extra: {} },
  groups: ['system:masters'],
};

const SUMMARY_BYTES_MAX = 16 << 20;

export interface MeasureOptions {
  server: ApiServer;
  store: Store;
  meter: UsageMeter;
  clock: Clock;
  log: Log;
  signal: AbortSignal;
}

/** Asks the nodes what tenants' pods use, by the way that `kubectl get --raw` has to them. */
export async function measureUsage({ server, ...options }: MeasureOptions): Promise<void> {
  const transport = server.loopback(SELF);
  const readSummary = async (node: string, signal: AbortSignal): Promise<unknown> => {
    const path = `/api/v1/nodes/${encodeURIComponent(node)}/proxy/stats/summary`;
    const { status, body } = await transport.request({ method: 'GET', path, signal });
    const chunks: Uint8Array[] = [];
    let size = 0;
    for await (const chunk of body) {
      size += chunk.length;
      if (size > SUMMARY_BYTES_MAX) throw new Error(`more than ${SUMMARY_BYTES_MAX} bytes`);
      chunks.push(chunk);
    }
    if (status !== 200) throw new Error(`answered with ${status}`);
    return JSON.parse(Buffer.concat(chunks).toString('utf8'));
  };
  await runUsageSampler({ ...options, readSummary });
  await transport.close();
}
