import { access, constants, open } from 'node:fs/promises';
import { execute } from '../../base/exec.ts';
import { systemRandom } from '../../base/random.ts';
import { good, limit, missing } from './check.ts';
import type { Check, Finding } from './check.ts';

/** Everything is tried inside a network namespace that exists only for the trial. */
async function inTrialNamespace(commands: string[][], signal: AbortSignal): Promise<Finding> {
  const name = `hn-doctor-${Buffer.from(systemRandom.bytes(4)).toString('hex')}`;
  try {
    for (const [command = '', ...args] of [['ip', 'netns', 'add', name], ...commands]) {
      const words = args.map((word) => (word === 'NETNS' ? name : word));
      const { exitCode, stderr } = await execute(command, words, { signal, timeoutMs: 5000 });
      if (exitCode !== 0) {
        const said = stderr.trim().split('\n')[0] ?? '';
        return missing(`${command} ${words.join(' ')}: ${said}`, 'Pods cannot get a network.');
      }
    }
    return good('');
  } finally {
    await execute('ip', ['netns', 'delete', name]);
  }
}

const inNamespace = (...words: string[]) => ['ip', '-n', 'NETNS', ...words];

export const bridgeCheck: Check = {
  name: 'bridge and tap',
  async run({ signal }) {
    const finding = await inTrialNamespace(
      [
        inNamespace('link', 'add', 'br0', 'type', 'bridge'),
        inNamespace('tuntap', 'add', 'tap0', 'mode', 'tap'),
        inNamespace('link', 'set', 'tap0', 'master', 'br0'),
      ],
      signal,
    );
    return finding.verdict === 'good' ? good('a tap device was put on a bridge') : finding;
  },
};

export const nftablesCheck: Check = {
  name: 'nftables',
  async run({ signal }) {
    const inside = (...words: string[]) => ['ip', 'netns', 'exec', 'NETNS', 'nft', ...words];
    const finding = await inTrialNamespace(
      [
        inside('add', 'table', 'ip', 'trial'),
        inside(
          'add',
          'chain',
          'ip',
          'trial',
          'post',
          '{ type nat hook postrouting priority 100; }',
        ),
        inside('add', 'rule', 'ip', 'trial', 'post', 'masquerade'),
      ],
      signal,
    );
    return finding.verdict === 'good' ? good('an address translation rule was loaded') : finding;
  },
};

async function canOpen(path: string): Promise<string> {
  try {
    await (await open(path, 'r+')).close();
    return '';
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? 'error';
  }
}

export const vhostCheck: Check = {
  name: 'vhost',
  async run() {
    const problem = await canOpen('/dev/vhost-net');
    if (!problem) return good('/dev/vhost-net opens');
    return limit(
      `/dev/vhost-net: ${problem}`,
      'Packets of pods go through the VMM, which is slower. "modprobe vhost_net" may help.',
    );
  },
};

export const vsockCheck: Check = {
  name: 'vsock',
  async run() {
    const problem = await canOpen('/dev/vhost-vsock');
    if (!problem) return good('/dev/vhost-vsock opens');
    return limit(
      `/dev/vhost-vsock: ${problem}`,
      'The control channel is virtio-serial, which needs nothing of the host.',
    );
  },
};

export const tunCheck: Check = {
  name: 'tun',
  async run() {
    const there = await access('/dev/net/tun', constants.R_OK | constants.W_OK).then(
      () => true,
      () => false,
    );
    if (there) return good('/dev/net/tun is there');
    return missing('/dev/net/tun is missing', 'Pods cannot get a network: load the module tun.');
  },
};
