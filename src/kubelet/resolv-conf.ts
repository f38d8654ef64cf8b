import { isIPv4 } from 'node:net';
import type { HyperPodSpec } from '../api/hyperd.ts';
import { readFileIfExists } from '../base/files.ts';

type Dns = HyperPodSpec['dns'];

/** The second one is where systemd-resolved keeps what its stub at 127.0.0.53 stands for. */
const FILES = ['/etc/resolv.conf', '/run/systemd/resolve/resolv.conf'];
/** resolv.conf(5). */
const NAMESERVERS_MAX = 3;

/**
 * What a resolv.conf(5) says, as far as it holds inside a pod: resolvers on the node's loopback
 * are somebody else there, and pods have IPv4 only. As in the C library the last `search` or
 * `domain` line counts, and options add up.
 */
export function parseResolvConf(text: string): Dns {
  const dns: Dns = { nameservers: [], searches: [], options: [] };
  for (const line of text.split('\n')) {
    const [keyword, ...values] = line
      .replace(/[#;].*$/, '')
      .trim()
      .split(/\s+/);
    const [first = ''] = values;
    if (keyword === 'nameserver' && isIPv4(first) && !/^(127\.|0\.)/.test(first)) {
      dns.nameservers.push(first);
    }
    if (keyword === 'search' || keyword === 'domain') dns.searches = values;
    if (keyword === 'options') dns.options.push(...values);
  }
  dns.searches = dns.searches.filter((domain) => domain !== '.');
  dns.nameservers = [...new Set(dns.nameservers)].slice(0, NAMESERVERS_MAX);
  return dns;
}

/** The node's resolvers as they are now; none where there is none that a pod could reach. */
export async function readNodeDns(files: readonly string[] = FILES): Promise<Dns> {
  let found: Dns | undefined;
  for (const file of files) {
    const dns = parseResolvConf((await readFileIfExists(file)) ?? '');
    if (dns.nameservers.length > 0) return dns;
    found ??= dns;
  }
  return found ?? { nameservers: [], searches: [], options: [] };
}
