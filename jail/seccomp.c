#define _GNU_SOURCE
#include "hyperjail.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/fs.h>
#include <linux/if_tun.h>
#include <linux/kvm.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <errno.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

// What the monitor may ask of the host's kernel; docs/adr/0010-what-an-emulator-may-call.md has
// the reasons. Found by tracing Debian 12's QEMU 7.2 (microvm and q35, TCG: boot, disks and
// network under load, hot-plug, balloon, migration to and from a descriptor, quit), and with KVM as
// far as a guest goes that never leaves its first instructions. What is there for a KVM guest that
// does comes from QEMU's source.
static const unsigned ALLOWED[] = {
    // Start: the jail's own exec, the loader, glibc. QEMU's sandbox takes exec away again; until
    // then, and in a monitor without one, there is nothing to execute but what the cell shows.
    SYS_execve, SYS_arch_prctl, SYS_set_tid_address, SYS_set_robust_list, SYS_rseq, SYS_brk,
    SYS_access, SYS_open, SYS_openat, SYS_stat, SYS_lstat, SYS_fstat, SYS_newfstatat, SYS_statfs,
    SYS_fstatfs, SYS_readlink, SYS_getdents64, SYS_getcwd, SYS_uname, SYS_sysinfo, SYS_getrandom,
    SYS_getpid, SYS_gettid, SYS_getppid, SYS_getuid, SYS_geteuid, SYS_getgid, SYS_getegid,
    // Memory of the guest, translated code, files mapped as memory.
    SYS_mmap, SYS_munmap, SYS_mremap, SYS_mprotect, SYS_madvise, SYS_msync,
    // Threads, which `clone` below makes.
    SYS_futex, SYS_membarrier, SYS_sched_yield, SYS_sched_getaffinity, SYS_getrusage, SYS_exit,
    SYS_exit_group,
    // Signals; with KVM virtual processors are interrupted by them (rt_sigtimedwait, rt_sigpending).
    SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_rt_sigpending,
    SYS_rt_sigtimedwait, SYS_sigaltstack, SYS_signalfd4, SYS_tgkill, SYS_restart_syscall,
    // Time: system calls where the host's clock is not readable from user space.
    SYS_clock_gettime, SYS_clock_getres, SYS_gettimeofday, SYS_time, SYS_clock_nanosleep,
    SYS_nanosleep,
    // Event loops.
    SYS_poll, SYS_ppoll, SYS_epoll_create1, SYS_epoll_ctl, SYS_epoll_wait, SYS_epoll_pwait,
    SYS_eventfd2, SYS_pipe2,
    // Descriptors that it has: disks, tap, console, a saved state. Locks are kept by fcntl.
    SYS_read, SYS_write, SYS_readv, SYS_writev, SYS_pread64, SYS_pwrite64, SYS_preadv, SYS_pwritev,
    SYS_lseek, SYS_close, SYS_dup, SYS_fcntl, SYS_fsync, SYS_fdatasync, SYS_fallocate,
    SYS_ftruncate, SYS_fadvise64, SYS_copy_file_range,
    // Clients of the listening sockets that it inherited. It cannot make a socket, nor connect one.
    SYS_accept4, SYS_listen, SYS_recvmsg, SYS_sendmsg, SYS_shutdown, SYS_getsockname,
    SYS_getpeername, SYS_getsockopt,
    // QEMU's own filter comes on top of this one and can only narrow it.
    SYS_seccomp,
};

// A call that is allowed when `mask` of one of its arguments has one of these values.
struct match {
  unsigned mask;
  unsigned value;
};
struct conditional {
  unsigned call;
  unsigned argument;
  // For pointers. Of an int the kernel looks at the lower half only, and so must we.
  bool is_upper_half_zero;
  // What a kernel says that does not know what was asked for.
  unsigned otherwise;
  const struct match *matches;
  size_t count;
};
#define IS(value) {~0u, (unsigned)(value)}
#define COUNT(table) (sizeof table / sizeof table[0])

// A tap or a block device has far more of these, with which its host could be harmed: the address
// of the device, its persistence, its filters, partitions, loop devices, SCSI commands.
static const struct match IOCTLS[] = {
    {_IOC_TYPEMASK << _IOC_TYPESHIFT, KVMIO << _IOC_TYPESHIFT},  // KVM: all of its own
    IS(TUNGETIFF), IS(TUNGETFEATURES), IS(TUNSETOFFLOAD), IS(TUNSETSNDBUF),
    IS(TUNGETVNETHDRSZ), IS(TUNSETVNETHDRSZ), IS(TUNSETVNETLE), IS(TUNSETVNETBE),
    IS(BLKGETSIZE64), IS(BLKSSZGET), IS(BLKPBSZGET), IS(BLKROGET), IS(BLKSECTGET),
    IS(BLKDISCARD), IS(BLKZEROOUT),
};

#define NEW_NAMESPACES (CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | \
                        CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET)
// Threads and no processes. glibc comes here because clone3, whose flags no filter can see, is
// unknown.
static const struct match CLONES[] = {{CLONE_THREAD | NEW_NAMESPACES, CLONE_THREAD}};

// Not among them is PR_SET_PDEATHSIG, by which a monitor dies with its keeper.
static const struct match PROCESS_OPTIONS[] = {
    IS(PR_SET_NAME), IS(PR_GET_NAME), IS(PR_SET_TIMERSLACK), IS(PR_SET_NO_NEW_PRIVS),
    IS(PR_MCE_KILL),
};


// Its limits can be read.
static const struct match NO_NEW_LIMIT[] = {IS(0)};

static const struct conditional CONDITIONALS[] = {
    {SYS_ioctl, 1, false, ENOTTY, IOCTLS, COUNT(IOCTLS)},
    {SYS_clone, 0, false, EPERM, CLONES, COUNT(CLONES)},
    {SYS_prctl, 0, false, EINVAL, PROCESS_OPTIONS, COUNT(PROCESS_OPTIONS)},
    {SYS_prlimit64, 2, true, EPERM, NO_NEW_LIMIT, COUNT(NO_NEW_LIMIT)},
};

// What nothing in a monitor ever has a reason to call, not even to find out whether it is there:
// one call is an attack. The monitor dies of SIGSYS, and the verdict says so.
static const unsigned ALARMS[] = {
    // Other processes.
    SYS_ptrace, SYS_process_vm_readv, SYS_process_vm_writev, SYS_kcmp, SYS_pidfd_getfd,
    // The kernel itself.
    SYS_bpf, SYS_perf_event_open, SYS_init_module, SYS_finit_module, SYS_delete_module,
    SYS_kexec_load, SYS_kexec_file_load, SYS_syslog, SYS_iopl, SYS_ioperm, SYS_add_key,
    SYS_request_key, SYS_keyctl,
    // Namespaces, mounts, files by handle, devices.
    SYS_unshare, SYS_setns, SYS_mount, SYS_umount2, SYS_pivot_root, SYS_chroot, SYS_open_tree,
    SYS_move_mount, SYS_fsopen, SYS_fsconfig, SYS_fsmount, SYS_fspick, SYS_mount_setattr,
    SYS_name_to_handle_at, SYS_open_by_handle_at, SYS_mknod, SYS_mknodat, SYS_fanotify_init,
    // Identity.
    SYS_setuid, SYS_setgid, SYS_setreuid, SYS_setregid, SYS_setresuid, SYS_setresgid,
    SYS_setgroups, SYS_setfsuid, SYS_setfsgid, SYS_capset,
    // The machine.
    SYS_reboot, SYS_swapon, SYS_swapoff, SYS_acct, SYS_quotactl, SYS_settimeofday,
    SYS_clock_settime, SYS_clock_adjtime, SYS_adjtimex, SYS_sethostname, SYS_setdomainname,
    SYS_vhangup,
};

#define CODE_MAX 1024
#define X32_BIT 0x40000000u

struct code {
  struct sock_filter at[CODE_MAX];
  unsigned short length;
};

static void add(struct code *c, struct sock_filter instruction) {
  if (c->length == CODE_MAX) refuse("a filter of more than %d instructions", CODE_MAX);
  c->at[c->length++] = instruction;
}

static void load(struct code *c, size_t offset) {
  add(c, (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (unsigned)offset));
}

static void answer(struct code *c, unsigned value) {
  add(c, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, value));
}

// Goes on with the next instruction where the loaded word is `value`, else `skipped` further.
static void require(struct code *c, unsigned value, size_t skipped) {
  if (skipped > 255) refuse("a condition of %zu instructions in the filter", skipped);
  add(c, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, (unsigned char)skipped));
}

static void add_conditional(struct code *c, const struct conditional *k) {
  // Little endian: the lower half comes first.
  size_t lower = offsetof(struct seccomp_data, args) + 8 * k->argument;
  size_t body = (k->is_upper_half_zero ? 4 : 0) + 4 * k->count + 1;
  require(c, k->call, body);
  if (k->is_upper_half_zero) {
    load(c, lower + 4);
    require(c, 0, 1);
    add(c, (struct sock_filter)BPF_STMT(BPF_JMP | BPF_JA, 1));
    answer(c, SECCOMP_RET_ERRNO | k->otherwise);
  }
  for (size_t i = 0; i < k->count; i++) {
    load(c, lower);
    add(c, (struct sock_filter)BPF_STMT(BPF_ALU | BPF_AND | BPF_K, k->matches[i].mask));
    require(c, k->matches[i].value, 1);
    answer(c, SECCOMP_RET_ALLOW);
  }
  answer(c, SECCOMP_RET_ERRNO | k->otherwise);
}

// A monitor that is to be frozen needs PR_GET_TID_ADDRESS, one that is thawed PR_SET_MM, which without
// capabilities changes what /proc says and where the heap ends, and not what is executed. Whatever
// else is asked of prctl comes to the table's condition.
static void add_process_option(struct code *c, unsigned option) {
  if (!option) return;
  require(c, SYS_prctl, 4);
  load(c, offsetof(struct seccomp_data, args));
  require(c, option, 1);
  answer(c, SECCOMP_RET_ALLOW);
  load(c, offsetof(struct seccomp_data, nr));
}

static void add_calls(struct code *c, const unsigned *calls, size_t count, unsigned value) {
  for (size_t i = 0; i < count; i++) {
    require(c, calls[i], 1);
    answer(c, value);
  }
}

// Whatever is in no table is unknown, as it would be to an older kernel: libraries probe for what
// is new (clone3, io_uring, statx) and fall back when they hear that. The conditionals are first,
// because KVM lives of ioctl; answers that need no argument the kernel remembers by itself.
void seccomp_enter(unsigned process_option) {
  static struct code code;
  load(&code, offsetof(struct seccomp_data, arch));
  require(&code, AUDIT_ARCH_X86_64, 1);
  add(&code, (struct sock_filter)BPF_STMT(BPF_JMP | BPF_JA, 1));
  answer(&code, SECCOMP_RET_KILL_PROCESS);
  load(&code, offsetof(struct seccomp_data, nr));
  add(&code, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, X32_BIT, 0, 1));
  answer(&code, SECCOMP_RET_KILL_PROCESS);
  add_process_option(&code, process_option);
  for (size_t i = 0; i < COUNT(CONDITIONALS); i++) add_conditional(&code, &CONDITIONALS[i]);
  add_calls(&code, ALLOWED, COUNT(ALLOWED), SECCOMP_RET_ALLOW);
  add_calls(&code, ALARMS, COUNT(ALARMS), SECCOMP_RET_KILL_PROCESS);
  answer(&code, SECCOMP_RET_ERRNO | ENOSYS);
  struct sock_fprog program = {code.length, code.at};
  if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program)) fail("enter seccomp");
}
