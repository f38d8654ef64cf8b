// Makes calls with and without the filter, each in a process of its own, and prints as JSON what
// the kernel said: 0, an errno, or 128 and the signal that it died of. Run by root, outside of any
// jail; the arguments are such that a call which is let through does no harm.
#define _GNU_SOURCE
#include "../seccomp.c"

#include <fcntl.h>
#include <linux/sockios.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>

struct attempt {
  const char *name;
  long call;
  unsigned long arguments[6];
};

#define NONE (~0ul)
// Highest number of a system call that is tried; those of today end below 480.
#define CALLS_END 600
#define LOW_HALF_ZERO 0x100000000ul

static struct rlimit limit;
static int pipe_end, terminal, tun;

static const struct attempt ALARMED[] = {
    {"ptrace", SYS_ptrace, {0}},
    {"process_vm_readv", SYS_process_vm_readv, {1, 0, 0, 0, 0, 0}},
    {"process_vm_writev", SYS_process_vm_writev, {1, 0, 0, 0, 0, 0}},
    {"kcmp", SYS_kcmp, {1, 1, 0, 0, 0}},
    {"pidfd_getfd", SYS_pidfd_getfd, {NONE, NONE, 0}},
    {"bpf", SYS_bpf, {NONE, 0, 0}},
    {"perf_event_open", SYS_perf_event_open, {0}},
    {"init_module", SYS_init_module, {0}},
    {"finit_module", SYS_finit_module, {NONE, 0, NONE}},
    {"delete_module", SYS_delete_module, {0}},
    {"kexec_load", SYS_kexec_load, {0, 0, 0, NONE}},
    {"kexec_file_load", SYS_kexec_file_load, {NONE, NONE, 0, 0, NONE}},
    {"syslog", SYS_syslog, {NONE, 0, 0}},
    {"iopl", SYS_iopl, {4}},
    {"ioperm", SYS_ioperm, {NONE, 1, 1}},
    {"add_key", SYS_add_key, {0}},
    {"request_key", SYS_request_key, {0}},
    {"keyctl", SYS_keyctl, {NONE}},
    {"unshare", SYS_unshare, {CLONE_NEWUSER}},
    {"setns", SYS_setns, {NONE, 0}},
    {"mount", SYS_mount, {0}},
    {"umount2", SYS_umount2, {0, NONE}},
    {"pivot_root", SYS_pivot_root, {0}},
    {"chroot", SYS_chroot, {0}},
    {"open_tree", SYS_open_tree, {NONE, 0, NONE}},
    {"move_mount", SYS_move_mount, {NONE, 0, NONE, 0, NONE}},
    {"fsopen", SYS_fsopen, {0, NONE}},
    {"fsconfig", SYS_fsconfig, {NONE, NONE, 0, 0, 0}},
    {"fsmount", SYS_fsmount, {NONE, NONE, 0}},
    {"fspick", SYS_fspick, {NONE, 0, NONE}},
    {"mount_setattr", SYS_mount_setattr, {NONE, 0, NONE, 0, 0}},
    {"name_to_handle_at", SYS_name_to_handle_at, {NONE, 0, 0, 0, NONE}},
    {"open_by_handle_at", SYS_open_by_handle_at, {NONE, 0, 0}},
    {"mknod", SYS_mknod, {0}},
    {"mknodat", SYS_mknodat, {NONE, 0, 0, 0}},
    {"fanotify_init", SYS_fanotify_init, {NONE, 0}},
    {"setuid", SYS_setuid, {0}},
    {"setgid", SYS_setgid, {0}},
    {"setreuid", SYS_setreuid, {NONE, NONE}},
    {"setregid", SYS_setregid, {NONE, NONE}},
    {"setresuid", SYS_setresuid, {NONE, NONE, NONE}},
    {"setresgid", SYS_setresgid, {NONE, NONE, NONE}},
    {"setgroups", SYS_setgroups, {0}},
    {"setfsuid", SYS_setfsuid, {NONE}},
    {"setfsgid", SYS_setfsgid, {NONE}},
    {"capset", SYS_capset, {0}},
    {"reboot", SYS_reboot, {0}},
    {"swapon", SYS_swapon, {0}},
    {"swapoff", SYS_swapoff, {0}},
    {"acct", SYS_acct, {1}},
    {"quotactl", SYS_quotactl, {NONE, 0, 0, 0}},
    {"settimeofday", SYS_settimeofday, {1, 0}},
    {"clock_settime", SYS_clock_settime, {NONE, 0}},
    {"clock_adjtime", SYS_clock_adjtime, {NONE, 0}},
    {"adjtimex", SYS_adjtimex, {1}},
    {"sethostname", SYS_sethostname, {0, NONE}},
    {"setdomainname", SYS_setdomainname, {0, NONE}},
    {"vhangup", SYS_vhangup, {0}},
    {"a call of the x32 interface", X32_BIT | SYS_getpid, {0}},
};

static const struct attempt UNKNOWN[] = {
    {"io_uring_setup", SYS_io_uring_setup, {1, 0}},
    {"io_uring_enter", SYS_io_uring_enter, {NONE, 0, 0, 0, 0}},
    {"io_uring_register", SYS_io_uring_register, {NONE, 0, 0, 0}},
    {"userfaultfd", SYS_userfaultfd, {NONE}},
    {"memfd_create", SYS_memfd_create, {(unsigned long)"x", 0}},
    {"execveat", SYS_execveat, {NONE, 0, 0, 0, NONE}},
    {"fork", SYS_fork, {0}},
    {"clone3", SYS_clone3, {0}},
    {"socket(AF_UNIX)", SYS_socket, {AF_UNIX, SOCK_STREAM, 0}},
    {"socket(AF_INET)", SYS_socket, {AF_INET, SOCK_STREAM, 0}},
    {"socket(AF_PACKET)", SYS_socket, {AF_PACKET, SOCK_RAW, 0}},
    {"socket(AF_NETLINK)", SYS_socket, {AF_NETLINK, SOCK_RAW, 0}},
    {"connect", SYS_connect, {NONE, 0, 0}},
    {"bind", SYS_bind, {NONE, 0, 0}},
    {"kill", SYS_kill, {1, 0}},
    {"pidfd_open", SYS_pidfd_open, {1, 0}},
    {"pidfd_send_signal", SYS_pidfd_send_signal, {NONE, 0, 0, 0}},
    {"wait4", SYS_wait4, {NONE, 0, WNOHANG, 0}},
    {"shmget", SYS_shmget, {0, 0, 0}},
    {"semget", SYS_semget, {1, 0, 0}},
    {"msgget", SYS_msgget, {1, 0}},
    {"mq_open", SYS_mq_open, {0}},
    {"inotify_init1", SYS_inotify_init1, {NONE}},
    {"unlink", SYS_unlink, {0}},
    {"rename", SYS_rename, {0}},
    {"link", SYS_link, {0}},
    {"symlink", SYS_symlink, {0}},
    {"mkdir", SYS_mkdir, {0}},
    {"chmod", SYS_chmod, {0}},
    {"fchmod", SYS_fchmod, {NONE, 0}},
    {"chown", SYS_chown, {0}},
    {"truncate", SYS_truncate, {0}},
    {"setxattr", SYS_setxattr, {0}},
    {"setrlimit", SYS_setrlimit, {NONE, 0}},
    {"setpriority", SYS_setpriority, {NONE, 0, 0}},
    {"sched_setaffinity", SYS_sched_setaffinity, {0, 0, 0}},
    {"sched_setscheduler", SYS_sched_setscheduler, {0, NONE, 0}},
    {"personality", SYS_personality, {0xffffffff}},
    {"splice", SYS_splice, {NONE, 0, NONE, 0, 1, 0}},
    {"io_setup", SYS_io_setup, {0}},
    {"move_pages", SYS_move_pages, {1, 0, 0, 0, 0, 0}},
    {"remap_file_pages", SYS_remap_file_pages, {0}},
};

static long outcome(const struct attempt *a, bool held) {
  pid_t child = fork();
  if (child == 0) {
    setsid();
    struct rlimit no_core = {0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    if (held) {
      if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) fail("forbid new privileges");
      seccomp_enter(0);
    }
    const unsigned long *v = a->arguments;
    long result = syscall(a->call, v[0], v[1], v[2], v[3], v[4], v[5]);
    _exit(result == -1 ? errno : 0);
  }
  int status;
  if (child < 0 || waitpid(child, &status, 0) != child) fail("try \"%s\"", a->name);
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static void print_all(const char *name, const struct attempt *list, size_t count) {
  printf("\"%s\":{", name);
  for (size_t i = 0; i < count; i++)
    printf("%s\"%s\":[%ld,%ld]", i ? "," : "", list[i].name, outcome(&list[i], false),
           outcome(&list[i], true));
  printf("}");
}

static bool contains(const unsigned *calls, size_t count, unsigned call) {
  while (count--)
    if (calls[count] == call) return true;
  return false;
}

static bool is_let_through(unsigned call) {
  for (size_t i = 0; i < COUNT(CONDITIONALS); i++)
    if (CONDITIONALS[i].call == call) return true;
  return contains(ALLOWED, COUNT(ALLOWED), call);
}

// Every number there is, those included that this file has never heard of.
static void print_leaks(void) {
  printf(",\"leaks\":[-1");
  for (unsigned call = 0; call < CALLS_END; call++) {
    if (is_let_through(call)) continue;
    struct attempt a = {"any", call, {NONE, NONE, NONE, NONE, NONE, NONE}};
    long wanted = contains(ALARMS, COUNT(ALARMS), call) ? 128 + SIGSYS : ENOSYS;
    if (outcome(&a, true) != wanted) printf(",%u", call);
  }
  printf("]");
}

static void prepare(void) {
  int ends[2];
  if (pipe(ends)) fail("make a pipe");
  pipe_end = ends[0];
  terminal = open("/dev/ptmx", O_RDWR | O_NOCTTY);
  tun = open("/dev/net/tun", O_RDWR);
  getrlimit(RLIMIT_NOFILE, &limit);
  int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;
  void *low = mmap((void *)LOW_HALF_ZERO, 4096, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (terminal < 0 || tun < 0 || low != (void *)LOW_HALF_ZERO) fail("prepare the attempts");
  *(struct rlimit *)low = limit;
}

int main(void) {
  setvbuf(stdout, NULL, _IOFBF, 1 << 16);
  prepare();
  static char old_limit[sizeof limit];
  const unsigned long fd = (unsigned long)pipe_end, pty = (unsigned long)terminal;
  const unsigned long device = (unsigned long)tun;
  const struct attempt conditionals[] = {
      {"ioctl FIONREAD", SYS_ioctl, {fd, FIONREAD, (unsigned long)old_limit}},
      {"ioctl TIOCSTI", SYS_ioctl, {pty, TIOCSTI, (unsigned long)old_limit}},
      {"ioctl TUNSETPERSIST", SYS_ioctl, {device, TUNSETPERSIST, 0}},
      {"ioctl SIOCSIFHWADDR", SYS_ioctl, {device, SIOCSIFHWADDR, 0}},
      {"clone of a process", SYS_clone, {SIGCHLD, 0, 0, 0, 0}},
      {"clone with namespaces", SYS_clone, {CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0}},
      {"prctl PR_SET_PDEATHSIG", SYS_prctl, {PR_SET_PDEATHSIG, 0}},
      {"prctl PR_SET_KEEPCAPS", SYS_prctl, {PR_SET_KEEPCAPS, 0}},
      {"prlimit64 set", SYS_prlimit64, {0, RLIMIT_NOFILE, (unsigned long)&limit, 0}},
      {"prlimit64 set, lower half of the pointer zero", SYS_prlimit64,
       {0, RLIMIT_NOFILE, LOW_HALF_ZERO, 0}},
  };
  const struct attempt allowed[] = {
      {"ioctl TUNGETFEATURES", SYS_ioctl, {device, TUNGETFEATURES, (unsigned long)old_limit}},
      {"ioctl, upper half set", SYS_ioctl,
       {device, TUNGETFEATURES | LOW_HALF_ZERO, (unsigned long)old_limit}},
      {"prctl PR_SET_NAME", SYS_prctl, {PR_SET_NAME, (unsigned long)"x"}},
      {"prlimit64 get", SYS_prlimit64, {0, RLIMIT_NOFILE, 0, (unsigned long)old_limit}},
      {"getpid", SYS_getpid, {0}},
  };
  printf("{");
  print_all("alarmed", ALARMED, COUNT(ALARMED));
  printf(",");
  print_all("unknown", UNKNOWN, COUNT(UNKNOWN));
  printf(",");
  print_all("conditional", conditionals, COUNT(conditionals));
  printf(",");
  print_all("allowed", allowed, COUNT(allowed));
  print_leaks();
  printf("}\n");
  return 0;
}
