#include "capability.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static const char *const NAMES[] = {
    [CAP_CHOWN] = "CHOWN",
    [CAP_DAC_OVERRIDE] = "DAC_OVERRIDE",
    [CAP_DAC_READ_SEARCH] = "DAC_READ_SEARCH",
    [CAP_FOWNER] = "FOWNER",
    [CAP_FSETID] = "FSETID",
    [CAP_KILL] = "KILL",
    [CAP_SETGID] = "SETGID",
    [CAP_SETUID] = "SETUID",
    [CAP_SETPCAP] = "SETPCAP",
    [CAP_LINUX_IMMUTABLE] = "LINUX_IMMUTABLE",
    [CAP_NET_BIND_SERVICE] = "NET_BIND_SERVICE",
    [CAP_NET_BROADCAST] = "NET_BROADCAST",
    [CAP_NET_ADMIN] = "NET_ADMIN",
    [CAP_NET_RAW] = "NET_RAW",
    [CAP_IPC_LOCK] = "IPC_LOCK",
    [CAP_IPC_OWNER] = "IPC_OWNER",
    [CAP_SYS_MODULE] = "SYS_MODULE",
    [CAP_SYS_RAWIO] = "SYS_RAWIO",
    [CAP_SYS_CHROOT] = "SYS_CHROOT",
    [CAP_SYS_PTRACE] = "SYS_PTRACE",
    [CAP_SYS_PACCT] = "SYS_PACCT",
    [CAP_SYS_ADMIN] = "SYS_ADMIN",
    [CAP_SYS_BOOT] = "SYS_BOOT",
    [CAP_SYS_NICE] = "SYS_NICE",
    [CAP_SYS_RESOURCE] = "SYS_RESOURCE",
    [CAP_SYS_TIME] = "SYS_TIME",
    [CAP_SYS_TTY_CONFIG] = "SYS_TTY_CONFIG",
    [CAP_MKNOD] = "MKNOD",
    [CAP_LEASE] = "LEASE",
    [CAP_AUDIT_WRITE] = "AUDIT_WRITE",
    [CAP_AUDIT_CONTROL] = "AUDIT_CONTROL",
    [CAP_SETFCAP] = "SETFCAP",
    [CAP_MAC_OVERRIDE] = "MAC_OVERRIDE",
    [CAP_MAC_ADMIN] = "MAC_ADMIN",
    [CAP_SYSLOG] = "SYSLOG",
    [CAP_WAKE_ALARM] = "WAKE_ALARM",
    [CAP_BLOCK_SUSPEND] = "BLOCK_SUSPEND",
    [CAP_AUDIT_READ] = "AUDIT_READ",
    [CAP_PERFMON] = "PERFMON",
    [CAP_BPF] = "BPF",
    [CAP_CHECKPOINT_RESTORE] = "CHECKPOINT_RESTORE",
};
#define COUNT (sizeof NAMES / sizeof *NAMES)

int capability_number(const char *name) {
  if (strncmp(name, "CAP_", 4)) return -1;
  for (size_t i = 0; i < COUNT; i++)
    if (!strcmp(NAMES[i], name + 4)) return (int)i;
  return -1;
}

bool capability_bound(uint64_t set) {
  for (int i = 0; prctl(PR_CAPBSET_READ, i, 0, 0, 0) >= 0; i++)
    if (!(i < 64 && set >> i & 1) && prctl(PR_CAPBSET_DROP, i, 0, 0, 0) < 0) return false;
  return true;
}

bool capability_set(uint64_t set) {
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
  struct __user_cap_data_struct data[2] = {0};
  for (int i = 0; i < 2; i++)
    data[i].permitted = data[i].effective = (uint32_t)(set >> 32 * i);
  if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0) return false;
  return syscall(SYS_capset, &header, data) == 0;
}

/* A call, and the capability with which a container may make it after all; -1: never. */
struct refusal {
  uint32_t call;
  int capability;
};

static const struct refusal REFUSED[] = {
    {SYS_acct, CAP_SYS_PACCT},
    {SYS_add_key, -1},
    {SYS_bpf, CAP_BPF},
    {SYS_clock_adjtime, CAP_SYS_TIME},
    {SYS_clock_settime, CAP_SYS_TIME},
    {SYS_create_module, -1},
    {SYS_delete_module, CAP_SYS_MODULE},
    {SYS_fanotify_init, CAP_SYS_ADMIN},
    {SYS_finit_module, CAP_SYS_MODULE},
    {SYS_fsconfig, CAP_SYS_ADMIN},
    {SYS_fsmount, CAP_SYS_ADMIN},
    {SYS_fsopen, CAP_SYS_ADMIN},
    {SYS_fspick, CAP_SYS_ADMIN},
    {SYS_get_mempolicy, CAP_SYS_NICE},
    {SYS_init_module, CAP_SYS_MODULE},
    {SYS_ioperm, CAP_SYS_RAWIO},
    {SYS_iopl, CAP_SYS_RAWIO},
    {SYS_io_uring_enter, -1},
    {SYS_io_uring_register, -1},
    {SYS_io_uring_setup, -1},
    {SYS_kcmp, CAP_SYS_PTRACE},
    {SYS_kexec_file_load, CAP_SYS_BOOT},
    {SYS_kexec_load, CAP_SYS_BOOT},
    {SYS_keyctl, -1},
    {SYS_lookup_dcookie, CAP_SYS_ADMIN},
    {SYS_mbind, CAP_SYS_NICE},
    {SYS_mount, CAP_SYS_ADMIN},
    {SYS_mount_setattr, CAP_SYS_ADMIN},
    {SYS_move_mount, CAP_SYS_ADMIN},
    {SYS_name_to_handle_at, CAP_SYS_ADMIN},
    {SYS_nfsservctl, -1},
    {SYS_open_by_handle_at, CAP_DAC_READ_SEARCH},
    {SYS_open_tree, CAP_SYS_ADMIN},
    {SYS_perf_event_open, CAP_PERFMON},
    {SYS_pivot_root, CAP_SYS_ADMIN},
    {SYS_process_vm_readv, CAP_SYS_PTRACE},
    {SYS_process_vm_writev, CAP_SYS_PTRACE},
    {SYS_quotactl, CAP_SYS_ADMIN},
    {SYS_reboot, CAP_SYS_BOOT},
    {SYS_request_key, -1},
    {SYS_set_mempolicy, CAP_SYS_NICE},
    {SYS_setns, CAP_SYS_ADMIN},
    {SYS_settimeofday, CAP_SYS_TIME},
    {SYS_swapoff, CAP_SYS_ADMIN},
    {SYS_swapon, CAP_SYS_ADMIN},
    {SYS_sysfs, -1},
    {SYS_syslog, CAP_SYSLOG},
    {SYS_umount2, CAP_SYS_ADMIN},
    {SYS_unshare, CAP_SYS_ADMIN},
    {SYS_uselib, -1},
    {SYS_userfaultfd, CAP_SYS_PTRACE},
    {SYS_ustat, -1},
    {SYS_vhangup, CAP_SYS_TTY_CONFIG},
};
#define REFUSED_COUNT (sizeof REFUSED / sizeof *REFUSED)
#define X32_CALLS 0x40000000u

bool seccomp_install(uint64_t set) {
  struct sock_filter filter[2 * REFUSED_COUNT + 8];
  const struct sock_filter refuse =
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (EPERM & SECCOMP_RET_DATA));
  unsigned short count = 0;
  filter[count++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
                                                 offsetof(struct seccomp_data, arch));
  /* 32 bit calls have other numbers: none of them. */
  filter[count++] =
      (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0);
  filter[count++] = refuse;
  filter[count++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
                                                 offsetof(struct seccomp_data, nr));
  filter[count++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, X32_CALLS, 0, 1);
  filter[count++] = refuse;
  for (size_t i = 0; i < REFUSED_COUNT; i++) {
    if (REFUSED[i].capability >= 0 && set >> REFUSED[i].capability & 1) continue;
    filter[count++] =
        (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, REFUSED[i].call, 0, 1);
    filter[count++] = refuse;
  }
  filter[count++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  struct sock_fprog program = {.len = count, .filter = filter};
  return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == 0;
}
