#define _GNU_SOURCE
#include "hyperjail.h"

#include <errno.h>
#include <grp.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

// Never above the hard limit: raising it takes CAP_SYS_RESOURCE, which a container may lack.
static void limit(int resource, rlim_t wanted) {
  struct rlimit now;
  if (getrlimit(resource, &now)) fail("read a resource limit");
  if (wanted > now.rlim_max) wanted = now.rlim_max;
  if (setrlimit(resource, &(struct rlimit){wanted, wanted})) fail("set a resource limit");
}

void limits_set(unsigned long file_count_max) {
  limit(RLIMIT_NOFILE, file_count_max);
  // A core file would hold the tenant's memory.
  limit(RLIMIT_CORE, 0);
}

// The bounding set can be shrunk only while CAP_SETPCAP is there: before the user changes.
static void bounding_set_keep(unsigned long long mask) {
  for (int capability = 0; capability < 64; capability++) {
    if (mask >> capability & 1) continue;
    if (prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) && errno != EINVAL)
      fail("drop capability %d from the bounding set", capability);
  }
}

static void capabilities_set(unsigned long long mask) {
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct data[2] = {
      {(unsigned)mask, (unsigned)mask, 0},
      {(unsigned)(mask >> 32), (unsigned)(mask >> 32), 0},
  };
  if (syscall(SYS_capset, &header, data)) fail("set capabilities");
}

void capabilities_keep(unsigned long long mask) {
  bounding_set_keep(mask);
  capabilities_set(mask);
}

void privileges_drop(uid_t uid) {
  if (setgroups(0, NULL)) fail("drop supplementary groups");
  bounding_set_keep(0);
  if (setresgid(uid, uid, uid)) fail("become group %u", uid);
  if (setresuid(uid, uid, uid)) fail("become user %u", uid);
  capabilities_set(0);
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) fail("forbid new privileges");
}

// What no monitor needs and what kernels have been broken through. The monitor's own filter
// comes on top of it. EPERM and not death, because libraries probe (io_uring) and fall back.
static const unsigned DENIED[] = {
    SYS_ptrace, SYS_process_vm_readv, SYS_process_vm_writev, SYS_kcmp, SYS_perf_event_open,
    SYS_bpf, SYS_userfaultfd, SYS_io_uring_setup, SYS_io_uring_enter, SYS_io_uring_register,
    SYS_add_key, SYS_keyctl, SYS_request_key, SYS_kexec_load, SYS_kexec_file_load,
    SYS_init_module, SYS_finit_module, SYS_delete_module, SYS_mount, SYS_umount2, SYS_pivot_root,
    SYS_chroot, SYS_setns, SYS_unshare, SYS_open_tree, SYS_move_mount, SYS_fsopen, SYS_fsconfig,
    SYS_fsmount, SYS_fspick, SYS_mount_setattr, SYS_name_to_handle_at, SYS_open_by_handle_at,
    SYS_quotactl, SYS_acct, SYS_swapon, SYS_swapoff, SYS_reboot, SYS_syslog, SYS_iopl, SYS_ioperm,
    SYS_settimeofday, SYS_clock_settime, SYS_adjtimex, SYS_clock_adjtime, SYS_sethostname,
    SYS_setdomainname, SYS_vhangup, SYS_modify_ldt, SYS_lookup_dcookie, SYS_pidfd_getfd,
    SYS_fanotify_init, SYS_nfsservctl, SYS_uselib, SYS_personality, SYS_move_pages,
};
#define DENIED_COUNT (sizeof DENIED / sizeof DENIED[0])
#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define ANSWER(value) BPF_STMT(BPF_RET | BPF_K, value)
#define X32_BIT 0x40000000u

void seccomp_enter(void) {
  struct sock_filter code[2 * DENIED_COUNT + 8] = {
      LOAD(arch),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0),
      ANSWER(SECCOMP_RET_KILL_PROCESS),
      LOAD(nr),
      BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, X32_BIT, 0, 1),
      ANSWER(SECCOMP_RET_KILL_PROCESS),
  };
  unsigned short length = 6;
  for (size_t i = 0; i < DENIED_COUNT; i++) {
    code[length++] =
        (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, DENIED[i], 0, 1);
    code[length++] = (struct sock_filter)ANSWER(SECCOMP_RET_ERRNO | EPERM);
  }
  code[length++] = (struct sock_filter)ANSWER(SECCOMP_RET_ALLOW);
  struct sock_fprog program = {length, code};
  if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program)) fail("enter seccomp");
}
