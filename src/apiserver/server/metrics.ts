import type { Store } from '../../store/store.ts';

/** Counters in Prometheus' text format. */
export interface Metrics {
  countRequest(resource: string, verb: string, code: number, tookMs: number): void;
  watchOpened(): void;
  watchClosed(): void;
  watchCount(): number;
  /** Set by the listener. */
  connectionCount: () => number;
  render(store: Store): string;
}

/** Label values come from requests: their number has to be bounded. */
const SERIES_MAX = 5_000;
const BUCKETS_SECONDS = [0.005, 0.025, 0.1, 0.5, 1, 5, 30];

export function createMetrics(): Metrics {
  const requests = new Map<string, number>();
  const durations = BUCKETS_SECONDS.map(() => 0);
  let durationCount = 0;
  let durationSum = 0;
  let watches = 0;
  return {
    countRequest(resource, verb, code, tookMs) {
      const known = /^[a-z]{0,40}$/.test(resource) && /^[A-Za-z]{1,20}$/.test(verb);
      const labels = known ? `resource="${resource}",verb="${verb}"` : 'resource="",verb="other"';
      const series = `{${labels},code="${code}"}`;
      const count = requests.get(series);
      if (count !== undefined || requests.size < SERIES_MAX) requests.set(series, (count ?? 0) + 1);
      const seconds = tookMs / 1000;
      durationCount += 1;
      durationSum += seconds;
      BUCKETS_SECONDS.forEach((bound, index) => {
        if (seconds <= bound) durations[index] = (durations[index] as number) + 1;
      });
    },
    watchOpened: () => void (watches += 1),
    watchClosed: () => void (watches -= 1),
    watchCount: () => watches,
    connectionCount: () => 0,
    render(store) {
      const stats = store.stats();
      const lines = ['# TYPE apiserver_request_total counter'];
      for (const [series, count] of requests)
        lines.push(`apiserver_request_total${series} ${count}`);
      const name = 'apiserver_request_duration_seconds';
      lines.push(`# TYPE ${name} histogram`);
      BUCKETS_SECONDS.forEach((bound, index) => {
        lines.push(`${name}_bucket{le="${bound}"} ${durations[index]}`);
      });
      lines.push(`${name}_bucket{le="+Inf"} ${durationCount}`);
      lines.push(`${name}_sum ${durationSum}`, `${name}_count ${durationCount}`);
      const gauges: [string, number][] = [
        ['apiserver_longrunning_requests', watches],
        ['apiserver_connections', this.connectionCount()],
        ['apiserver_storage_revision', stats.revision],
        ['apiserver_storage_objects', stats.objectCount],
        ['apiserver_storage_size_bytes', stats.bytes],
        ['process_resident_memory_bytes', process.memoryUsage.rss()],
      ];
      for (const [gauge, value] of gauges) lines.push(`# TYPE ${gauge} gauge`, `${gauge} ${value}`);
      return `${lines.join('\n')}\n`;
    },
  };
}
