/**
 * The guest kernel's command line, as data with reasons. Security here means the guest's own: the
 * border between tenants is the VM, whose host side none of these touch.
 */
export interface KernelArgument {
  argument: string;
  reason: string;
}

/**
 * Start-up functions of the kernel that are left out: files for tracing, which nobody in a VM of
 * one pod reads, self tests, and certificates for modules, which need none here. A fifth of the
 * instructions of a start.
 */
const SKIPPED_INITCALLS = [
  'trace_eval_init',
  'tracer_init_tracefs',
  'init_kprobe_trace',
  'init_uprobe_trace',
  'init_dynamic_event',
  'trace_events_synth_init',
  'init_blk_tracer',
  'crypto_kdf108_init',
  'load_system_certificate_list',
  'extfrag_debug_init',
];

const ALWAYS: KernelArgument[] = [
  { argument: 'console=ttyS0', reason: 'a panic must reach the VMM and its log' },
  { argument: 'quiet', reason: 'each byte on an emulated port is an exit of the VM' },
  { argument: 'panic=-1', reason: 'a guest that panicked ends, with its words on the console' },
  { argument: 'reboot=t', reason: 'a triple fault ends the VMM under -no-reboot' },
  {
    argument: 'rcupdate.rcu_expedited=1',
    reason: 'mounts, namespaces and modules wait for grace periods; short ones for one small VM',
  },
  { argument: 'random.trust_cpu=on', reason: 'the first keys must not wait for entropy' },
  { argument: 'cryptomgr.notests', reason: 'self tests of ciphers take longer than their use' },
  {
    argument: `initcall_blacklist=${SKIPPED_INITCALLS.join(',')}`,
    reason: 'what is not needed takes a fifth of the start under emulation',
  },
  {
    argument: 'noreplace-smp',
    reason:
      'with one CPU the kernel takes 7000 lock prefixes out of itself, each with a flush of its ' +
      'translations: a third of an emulated start',
  },
  { argument: '8250.nr_uarts=1', reason: 'three ports that are not there need not be looked for' },
  { argument: 'audit=0', reason: 'nobody reads it, and each system call would pass it' },
  { argument: 'psi=0', reason: 'nobody reads it, and each change of processes would be counted' },
  {
    argument: 'nowatchdog',
    reason: 'an idle guest would wake every 4 s, and a stopped one would call itself stuck',
  },
  { argument: 'transparent_hugepage=never', reason: 'idle memory must stay small' },
];

const TCG: KernelArgument[] = [
  {
    argument: 'tsc=reliable',
    reason: 'without it the clock source is jiffies: 250 wake-ups a second of an idle guest',
  },
];

export interface KernelArgumentOptions {
  accelerator: 'kvm' | 'tcg';
  /**
   * Of the host's time stamp counter, which an emulated CPU passes through. The guest cannot
   * measure it: it would compare it with an emulated timer, fails whenever the host is busy, and
   * then hangs for want of any clock. Needed with `tcg`.
   */
  tscKhz?: number;
}

/** @throws RangeError without a plausible `tscKhz` under `tcg` */
export function kernelArguments(options: KernelArgumentOptions): KernelArgument[] {
  if (options.accelerator === 'kvm') return ALWAYS;
  const khz = options.tscKhz ?? 0;
  if (!Number.isInteger(khz) || khz < 100_000 || khz > 20_000_000) {
    throw new RangeError(`tscKhz: ${khz}, wanted 100000 to 20000000`);
  }
  const reason = 'measuring it fails on a busy host, and the guest then hangs';
  return [...ALWAYS, ...TCG, { argument: `tsc_early_khz=${khz}`, reason }];
}
